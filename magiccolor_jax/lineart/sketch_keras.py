"""sketchKeras (github.com/lllyasviel/sketchKeras) as github.com/higumax/sketchKeras-pytorch ports
it: a U-Net that draws what is left of each colour channel without its broad shapes.

Facts: the port's `src/model.py` and `src/test.py`; its weights are called `model.pth`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from magiccolor_jax.lineart.method import Compiled
from magiccolor_jax.nn.normalisation import FrozenBatchNorm

HALVINGS = 4
STEP = 2**HALVINGS
"""Sides of pictures are multiples of this."""

LEAST = 2 * STEP
"""Least side: the deepest level is mirrored at its edges."""

SIDE = 512
"""Longest side of a picture, and side of the square that it lies in."""

BLUR = 3.0
"""Deviation of the Gaussian whose result is taken off, in pixels."""

FAINTEST = 0.1
"""Lines below this are none."""

BOTH, DOUBLED = ((1, 1), (1, 1)), ((1, 2), (1, 2))
"""Rows and columns that are mirrored around a window of 3, or of 4."""


@dataclass(frozen=True, kw_only=True)
class SketchKerasConfig:
    """The network's sizes."""

    width: int = 32
    """Channels of the first block; each halving doubles them."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; normalisations are in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"SketchKerasConfig: width must be at least 1, got {self.width}")

    @classmethod
    def official(cls, **overrides: Any) -> "SketchKerasConfig":
        """The published weights' (18.6 M parameters)."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "SketchKerasConfig":
        """Test-sized."""
        sizes: dict[str, Any] = {"width": 2}
        return cls(**(sizes | overrides))


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> SketchKerasConfig:
    """The sizes of a checkpoint, by the shapes of its tensors.

    Raises:
        ValueError: its first convolution is another.
    """
    first = shapes.get("downblock_1.1.weight", ())
    if len(first) != 4:
        raise ValueError(f"expected sketchKeras' downblock_1.1.weight of four axes, got {first}")
    return SketchKerasConfig(width=first[0])


class Block(nnx.Module):
    """Mirroring, convolution, normalisation and ReLU, once or twice, under PyTorch's numbers."""

    def __init__(
        self,
        channels: tuple[int, ...],
        windows: tuple[int, ...],
        cfg: SketchKerasConfig,
        *,
        enlarges: bool = False,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            channels: before, between and after the convolutions.
            windows: a window of 4 halves, or stands behind an enlargement.
        """
        self.enlarges, self.count = enlarges, len(windows)
        stride = 1 if enlarges else 2
        for index, window in enumerate(windows):
            place = 4 * index + 1 + enlarges
            conv = nnx.Conv(
                channels[index],
                channels[index + 1],
                (window, window),
                strides=stride if window == 4 else 1,
                padding="VALID",
                dtype=cfg.dtype,
                param_dtype=cfg.param_dtype,
                rngs=rngs,
            )
            norm = FrozenBatchNorm(channels[index + 1], cfg.param_dtype)
            setattr(self, str(place), conv)
            setattr(self, str(place + 1), norm)

    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B _ _ O"]:
        """As large as `x`, half as large, or twice as large."""
        if self.enlarges:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        for index in range(self.count):
            place = 4 * index + 1 + self.enlarges
            around = DOUBLED if self.enlarges and index == 0 else BOTH
            x = getattr(self, str(place))(_mirrored(x, around))
            x = nnx.relu(getattr(self, str(place + 1))(x))
        return x


def _mirrored(
    x: Float[Array, "B h w C"], around: tuple[tuple[int, int], tuple[int, int]]
) -> Float[Array, "B _ _ C"]:
    """The rows and columns before and after are mirrored about the outermost ones."""
    return jnp.pad(x, ((0, 0), *around, (0, 0)), mode="reflect")


class SketchKeras(nnx.Module):
    """High frequencies of one colour channel -> line art."""

    def __init__(self, cfg: SketchKerasConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        one, two, four, eight, most = (cfg.width * 2**i for i in range(HALVINGS + 1))

        def block(channels: tuple[int, ...], windows: tuple[int, ...], **how: bool) -> Block:
            return Block(channels, windows, cfg, rngs=rngs, **how)

        self.downblock_1 = block((1, one), (3,))
        self.downblock_2 = block((one, two, two), (4, 3))
        self.downblock_3 = block((two, four, four), (4, 3))
        self.downblock_4 = block((four, eight, eight), (4, 3))
        self.downblock_5 = block((eight, most), (4,))
        self.downblock_6 = block((most, most), (3,))
        self.upblock_1 = block((2 * most, most, eight), (4, 3), enlarges=True)
        self.upblock_2 = block((2 * eight, eight, four), (4, 3), enlarges=True)
        self.upblock_3 = block((2 * four, four, two), (4, 3), enlarges=True)
        self.upblock_4 = block((2 * two, two, one), (4, 3), enlarges=True)
        self.last_conv = nnx.Conv(
            2 * one,
            1,
            (3, 3),
            padding="VALID",
            dtype=cfg.dtype,
            param_dtype=cfg.param_dtype,
            rngs=rngs,
        )

    def __call__(self, channels: Float[Array, "B H W 1"]) -> Float[Array, "B H W 1"]:
        """Lines: 0 where there is none, 1 at black ones; not cut off.

        Args:
            channels: of any range, 1 at the largest value.

        Raises:
            ValueError: sides that cannot be halved four times, or leave a single row.
        """
        sides = channels.shape[1:3]
        if any(side % STEP for side in sides) or min(sides) < LEAST:
            raise ValueError(
                f"sketchKeras: sides must be multiples of {STEP}, at least {LEAST}, got "
                f"{sides[0]} x {sides[1]}"
            )
        x, skipped = channels.astype(self.cfg.dtype), []
        for number in range(1, 6):
            x = getattr(self, f"downblock_{number}")(x)
            skipped.append(x)
        x = self.downblock_6(x)
        for number in range(1, 5):
            x = getattr(self, f"upblock_{number}")(jnp.concatenate([skipped.pop(), x], axis=-1))
        x = jnp.concatenate([skipped.pop(), x], axis=-1)
        return self.last_conv(_mirrored(x, BOTH)).astype(jnp.float32)


class SketchKerasMethod:
    """The port's way from a picture to lines: the longer side to 512, in the corner of a square."""

    name = "sketch-keras"

    def __init__(self, network: SketchKeras, side: int = SIDE):
        """
        Args:
            side: of the square in pixels.

        Raises:
            ValueError: the network cannot halve it often enough.
        """
        if side < LEAST or side % STEP:
            raise ValueError(
                f"sketchKeras: the size must be a multiple of {STEP}, at least {LEAST}: got {side}"
            )
        self.settings = f"side {side}"
        self._side, self._network = side, Compiled(network)

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the network sees a picture, whatever its own are."""
        return self._side, self._side

    def shrink(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture without what is around it in the square.

        `# differs:` the port makes some square pictures 511 wide, and a side of no pixel of others.
        """
        height, width = picture.shape[:2]
        longest = max(height, width)
        scale = self._side / longest
        size = (
            max(int(scale * side), 1) if side < longest else self._side for side in (width, height)
        )
        return cv2.resize(picture, tuple(size))

    def draw(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Lines, 0 = ink, 1 = paper, of RGB in [0, 1]: in the channel that shows them best."""
        square = np.zeros((3, self._side, self._side, 1), np.float32)
        height, width = pixels.shape[:2]
        square[:, :height, :width, 0] = np.moveaxis(high_frequencies(pixels), -1, 0)
        ink = self._network(square)[:, :height, :width, 0].max(axis=0)
        return 1 - np.clip(np.where(ink < FAINTEST, 0, ink), 0, 1)

    def restore(
        self, lines: Float32[np.ndarray, "h w"], shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Lines at the picture's own size, 0..255; truncated before they are resized.

        `# differs:` the port leaves them small.
        """
        small = (lines * np.float32(255)).astype(np.uint8)
        return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)


def high_frequencies(pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """A picture without its broad shapes, its largest value 1; zeros where it has nothing else.

    Args:
        pixels: RGB in [0, 1], in steps of 1/255 as the port takes it.
    """
    levels = np.rint(pixels * 255).astype(np.uint8)
    fine = (levels.astype(int) - cv2.GaussianBlur(levels, (0, 0), BLUR).astype(int)) / 128
    largest = fine.max()
    return (fine / largest if largest > 0 else np.zeros_like(fine)).astype(np.float32)
