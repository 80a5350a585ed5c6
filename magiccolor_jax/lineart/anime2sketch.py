"""Anime2Sketch (github.com/Mukosame/Anime2Sketch): the U-Net of pix2pix (arXiv:1611.07004) with
instance normalisation, under its checkpoints' names.

`netG.pth` enlarges by transposed convolutions; the later `improved.bin` enlarges all levels but the
first and the last bilinearly, and leaves no checkerboards. Facts: that repository's `model.py`,
`data.py`, `test.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8
from PIL import Image

from magiccolor_jax.lineart.method import Compiled
from magiccolor_jax.nn.normalisation import instance_norm

Enlarging = Literal["transposed", "bilinear"]

WIDEST = 8
"""Channels of the deepest levels, over those of the first."""

LEAST_DEPTH = 5
"""The first level, three that double the channels, and the innermost."""

LEAK = 0.2
"""Slope of the leaky ReLU below 0."""

SIDE = 512
"""Side of the square that the authors bring every picture to."""


@dataclass(frozen=True, kw_only=True)
class Anime2SketchConfig:
    """The generator's sizes; the defaults are those of `netG.pth`."""

    width: int = 64
    """Channels of the first level; they double up to eight times as many."""
    depth: int = 8
    """Levels, each of half the resolution: sides are multiples of 2^depth."""
    enlarging: Enlarging = "transposed"
    """How the levels between the first and the innermost double their resolution."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; normalisations are in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        if self.width < 1 or self.depth < LEAST_DEPTH:
            raise ValueError(
                f"Anime2SketchConfig: expected a width of at least 1 and a depth of at least "
                f"{LEAST_DEPTH}, got {self.width} and {self.depth}"
            )
        if self.enlarging not in ("transposed", "bilinear"):
            raise ValueError(
                f"Anime2SketchConfig: enlarging must be transposed or bilinear, got "
                f"{self.enlarging!r}"
            )

    @classmethod
    def official(cls, **overrides: Any) -> "Anime2SketchConfig":
        """`netG.pth` (54.4 M parameters); with `enlarging="bilinear"`, `improved.bin` (48.0 M)."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "Anime2SketchConfig":
        """Test-sized; sides are multiples of 32."""
        sizes: dict[str, Any] = {"width": 4, "depth": LEAST_DEPTH}
        return cls(**(sizes | overrides))

    @property
    def step(self) -> int:
        """Sides of pictures are multiples of this."""
        return 2**self.depth

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * min(2**index, WIDEST) for index in range(self.depth))

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> Anime2SketchConfig:
    """The sizes of a checkpoint, by the shapes of its tensors.

    Raises:
        ValueError: it has not the levels of such a network.
    """
    depth, key = 1, "model.model.1.model.1.weight"
    while key in shapes:
        depth, key = depth + 1, key.removesuffix("1.weight") + "3.model.1.weight"
    first = shapes.get("model.model.0.weight", ())
    if len(first) != 4 or depth < LEAST_DEPTH:
        raise ValueError(
            f"expected Anime2Sketch's generator: model.model.0.weight of four axes and at least "
            f"{LEAST_DEPTH} levels, got {first} and {depth} levels"
        )
    bilinear = "model.model.1.model.5.conv.weight" in shapes
    return Anime2SketchConfig(
        width=first[0], depth=depth, enlarging="bilinear" if bilinear else "transposed"
    )


class BilinearDoubling(nnx.Module):
    """Bilinear enlargement, a blur, a 3x3 convolution, and two 1x1 ones beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, cfg: Anime2SketchConfig, *, rngs: nnx.Rngs):
        kinds = {"rngs": rngs, **cfg.kinds}
        self.conv = nnx.Conv(inputs, outputs, (3, 3), padding=1, **kinds)
        self.mlp = nnx.Dict(
            {
                "0": nnx.Conv(outputs, 4 * outputs, (1, 1), **kinds),
                "2": nnx.Conv(4 * outputs, outputs, (1, 1), **kinds),
            }
        )

    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B H W O"]:
        """Twice as high and wide."""
        for axis in (1, 2):
            x = _blurred(_doubled(x, axis), axis)
        x = self.conv(x)
        return self.mlp["2"](nnx.gelu(self.mlp["0"](x), approximate=False)) + x


def _neighbours(x: Float[Array, "B h w C"], axis: int) -> tuple[Array, Array]:
    """Along an axis, what stands before and after each place; edges stand beside themselves."""
    length = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)], mode="edge")
    before, after = (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in (0, 2))
    return before, after


def _doubled(x: Float[Array, "B h w C"], axis: int) -> Float[Array, "B _ _ C"]:
    """Bilinear between pixel centres (PyTorch's align_corners=False)."""
    before, after = _neighbours(x, axis)
    pair = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    shape = [2 * length if i == axis else length for i, length in enumerate(x.shape)]
    return pair.reshape(shape)


def _blurred(x: Float[Array, "B h w C"], axis: int) -> Float[Array, "B h w C"]:
    """By 1 2 1, which is the checkpoint's buffer `smooth.kernel`."""
    before, after = _neighbours(x, axis)
    return 0.25 * before + 0.5 * x + 0.25 * after


class Level(nnx.Module):
    """One level of the U-Net with all levels below it; submodules have PyTorch's numbers."""

    def __init__(self, index: int, cfg: Anime2SketchConfig, *, rngs: nnx.Rngs):
        self.first, self.innermost = index == 0, index == cfg.depth - 1
        inside = cfg.widths[index]
        inputs, outputs = (3, 1) if self.first else 2 * (cfg.widths[index - 1],)
        kinds = {"rngs": rngs, **cfg.kinds}
        below = {} if self.innermost else {"sub": Level(index + 1, cfg, rngs=rngs)}
        layers = {
            "down": nnx.Conv(inputs, inside, (4, 4), strides=2, padding=1, **kinds),
            **below,
            "up": self._enlarging(inside * (2 - self.innermost), outputs, cfg, rngs=rngs),
        }
        self.model = nnx.Dict({self._place(name): layer for name, layer in layers.items()})

    def _place(self, name: str) -> str:
        """PyTorch's number of a layer; activations and normalisations have numbers too."""
        if self.first:
            return {"down": "0", "sub": "1", "up": "3"}[name]
        return {"down": "1", "sub": "3", "up": "3" if self.innermost else "5"}[name]

    def _enlarging(
        self, inputs: int, outputs: int, cfg: Anime2SketchConfig, *, rngs: nnx.Rngs
    ) -> nnx.Module:
        if cfg.enlarging == "bilinear" and not (self.first or self.innermost):
            return BilinearDoubling(inputs, outputs, cfg, rngs=rngs)
        # PyTorch's padding of 1; its [I O 4 4] is turned as any kernel is.
        return nnx.ConvTranspose(
            inputs,
            outputs,
            (4, 4),
            strides=(2, 2),
            padding=((2, 2), (2, 2)),
            transpose_kernel=True,
            rngs=rngs,
            **cfg.kinds,
        )

    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h w O"]:
        """The first level: what it makes of `x`; the others: `x`, and beside it what they make."""
        inner = self.model[self._place("down")](x if self.first else nnx.leaky_relu(x, LEAK))
        if not self.innermost:
            inner = inner if self.first else instance_norm(inner)
            inner = self.model[self._place("sub")](inner)
        made = self.model[self._place("up")](nnx.relu(inner))
        return made if self.first else jnp.concatenate([x, instance_norm(made)], axis=-1)


class Anime2Sketch(nnx.Module):
    """Picture -> line art."""

    def __init__(self, cfg: Anime2SketchConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.model = Level(0, cfg, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 1"]:
        """Lines in [-1, 1]: -1 is ink, 1 is paper.

        Args:
            pixels: RGB in [-1, 1].

        Raises:
            ValueError: sides that cannot be halved `depth` times.
        """
        if any(side % self.cfg.step for side in pixels.shape[1:3]):
            raise ValueError(
                f"Anime2Sketch: sides must be multiples of {self.cfg.step}, got "
                f"{pixels.shape[1]} x {pixels.shape[2]}"
            )
        made = self.model(pixels.astype(self.cfg.dtype))
        return jnp.tanh(made.astype(jnp.float32))


class Anime2SketchMethod:
    """The authors' way from a picture to lines: squeezed to a square, and its lines back."""

    name = "anime2sketch"

    def __init__(self, network: Anime2Sketch, side: int = SIDE):
        """
        Args:
            side: of the square in pixels.

        Raises:
            ValueError: the network cannot halve it often enough.
        """
        step = network.cfg.step
        if side < step or side % step:
            raise ValueError(
                f"Anime2Sketch: the size must be a multiple of {step}, at least that: got {side}"
            )
        self.settings = f"side {side}"
        self._side, self._network = side, Compiled(network)

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the network sees a picture, whatever its own are."""
        return self._side, self._side

    def shrink(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as the network sees it."""
        return _bicubic(picture, (self._side, self._side))

    def draw(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Lines, 0 = ink, 1 = paper, of RGB in [0, 1]."""
        signed = (pixels - np.float32(0.5)) / np.float32(0.5)
        made = self._network(signed[None])[0, :, :, 0]
        return (made + 1) / np.float32(2)

    def restore(
        self, lines: Float32[np.ndarray, "h w"], shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Lines at the picture's own size, 0..255; truncated before they are resized."""
        return _bicubic((lines * np.float32(255)).astype(np.uint8), shape)


def _bicubic(
    picture: UInt8[np.ndarray, "H W *C"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w *C"]:
    """A picture of another height and width, as PIL resizes it."""
    height, width = shape
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
