"""What every way from a picture to its lines has: a size to see it at, a drawing, the way back."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float32, UInt8

from magiccolor_jax.lineart.clahe import clahe
from magiccolor_jax.lineart.xdog import XDoG, xdog


@runtime_checkable
class Method(Protocol):
    """A way to draw lines."""

    name: str
    """As `--method` has it."""
    settings: str
    """All that the lines depend on, beside the picture and a network's weights."""

    def size(self, shape: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width that a picture of this shape is compiled for; None: nothing is."""
        ...

    def shrink(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture at the size at which it is drawn."""
        ...

    def draw(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Lines, 0 = ink, 1 = paper, of RGB in [0, 1]."""
        ...

    def restore(
        self, lines: Float32[np.ndarray, "h w"], shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Lines at the picture's own size, 0..255."""
        ...


class Contrast(NamedTuple):
    """Where contrast is evened out (`clahe`), and its limits; None: it is not."""

    picture: float | None = None
    """Before lines are drawn, as Anime2Sketch offers it for dark pictures."""
    lines: float | None = None
    """Afterwards, as MagicColor's training did, with limit 1 (release.md §7)."""


UNCHANGED = Contrast()


class LineArt(NamedTuple):
    """An extractor, as `EXTRACTORS` has them."""

    method: Method
    contrast: Contrast = UNCHANGED

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
        """RGB, 0..255 -> lines of the same size, 0 = ink, 255 = paper.

        Raises:
            ValueError: contrast is to be evened out, and the picture is too small for that.
        """
        pixels = self.method.shrink(picture).astype(np.float32) / np.float32(255)
        if self.contrast.picture is not None:
            pixels = clahe(pixels, self.contrast.picture)
        lines = self.method.draw(pixels)
        if self.contrast.lines is not None:
            lines = clahe(np.clip(lines, 0, 1)[..., None], self.contrast.lines)[..., 0]
        return self.method.restore(lines, picture.shape[:2])


class XDoGMethod:
    """XDoG at the picture's own size."""

    name = "xdog"
    settings = repr(XDoG())

    def size(self, shape: tuple[int, int]) -> None:
        """Nothing is compiled."""

    def shrink(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as it is."""
        return picture

    def draw(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Lines, 0 = ink, 1 = paper, of RGB in [0, 1]."""
        levels = np.rint(pixels * 255).astype(np.uint8)
        return xdog(levels).astype(np.float32) / np.float32(255)

    def restore(
        self, lines: Float32[np.ndarray, "h w"], shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Lines, 0..255."""
        return np.rint(lines * 255).astype(np.uint8)


class Compiled:
    """A network as one program for each size of its input."""

    def __init__(self, network: nnx.Module):
        graph, self._state = nnx.split(network)
        self.program = jax.jit(lambda state, pixels: nnx.merge(graph, state)(pixels))

    def __call__(self, pixels: Float32[np.ndarray, "B h w I"]) -> Float32[np.ndarray, "B h w O"]:
        """The network's output."""
        return np.asarray(self.program(self._state, pixels))
