"""The generator of Informative Drawings (arXiv:2203.12691) that ControlNet 1.1 and MagicColor call
`lineart`: `sk_model.pth`, and `sk_model2.pth` for coarser lines, under their names.

Facts: github.com/carolineec/informative-drawings `model.py`; `annotator/lineart` and
`annotator/util.py` of github.com/lllyasviel/ControlNet-v1-1-nightly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from magiccolor_jax.lineart.method import Compiled
from magiccolor_jax.nn.normalisation import instance_norm

STEP = 4
"""Sides of pictures are multiples of this."""

LEAST = 8
"""Least side: the residual blocks mirror what is four times smaller at its edges."""

SIDE, MULTIPLE = 512, 64
"""The annotator brings the shorter side to 512, and both to multiples of 64."""

LONGEST = 4
"""`# differs:` of pictures that are longer than this times as wide, the longer side counts."""


@dataclass(frozen=True, kw_only=True)
class InformativeDrawingsConfig:
    """The generator's sizes."""

    width: int = 64
    """Channels at the picture's own resolution; each of two halvings doubles them."""
    blocks: int = 3
    """Residual blocks."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; normalisations are in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        if self.width < 1 or self.blocks < 0:
            raise ValueError(
                f"InformativeDrawingsConfig: expected a width of at least 1 and no negative number "
                f"of blocks, got {self.width} and {self.blocks}"
            )

    @classmethod
    def official(cls, **overrides: Any) -> "InformativeDrawingsConfig":
        """`sk_model.pth` and `sk_model2.pth` (4.3 M parameters)."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "InformativeDrawingsConfig":
        """Test-sized."""
        sizes: dict[str, Any] = {"width": 4, "blocks": 2}
        return cls(**(sizes | overrides))

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> InformativeDrawingsConfig:
    """The sizes of a checkpoint, by the shapes of its tensors.

    Raises:
        ValueError: its first convolution is another.
    """
    first = shapes.get("model0.1.weight", ())
    if len(first) != 4:
        raise ValueError(
            f"expected Informative Drawings' model0.1.weight of four axes, got {first}"
        )
    blocks = sum(f"model2.{index}.conv_block.1.weight" in shapes for index in range(len(shapes)))
    return InformativeDrawingsConfig(width=first[0], blocks=blocks)


def _mirrored(x: Float[Array, "B h w C"], margin: int) -> Float[Array, "B _ _ C"]:
    """Rows and columns on all sides, mirrored about the outermost ones."""
    around = (margin, margin)
    return jnp.pad(x, ((0, 0), around, around, (0, 0)), mode="reflect")


class Residual(nnx.Module):
    """Two mirrored 3x3 convolutions beside a shortcut."""

    def __init__(self, width: int, cfg: InformativeDrawingsConfig, *, rngs: nnx.Rngs):
        self.conv_block = nnx.Dict(
            {
                name: nnx.Conv(width, width, (3, 3), padding="VALID", rngs=rngs, **cfg.kinds)
                for name in ("1", "5")
            }
        )

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        made = nnx.relu(instance_norm(self.conv_block["1"](_mirrored(x, 1))))
        return x + instance_norm(self.conv_block["5"](_mirrored(made, 1)))


class InformativeDrawings(nnx.Module):
    """Picture -> line art."""

    def __init__(self, cfg: InformativeDrawingsConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        one, two, four = cfg.width, 2 * cfg.width, 4 * cfg.width
        kinds = {"rngs": rngs, **cfg.kinds}

        def halving(inputs: int) -> nnx.Conv:
            return nnx.Conv(inputs, 2 * inputs, (3, 3), strides=2, padding=1, **kinds)

        def doubling(inputs: int) -> nnx.ConvTranspose:
            # PyTorch's padding and output_padding of 1; its [I O 3 3] is turned as any kernel is.
            return nnx.ConvTranspose(
                inputs,
                inputs // 2,
                (3, 3),
                strides=(2, 2),
                padding=((1, 2), (1, 2)),
                transpose_kernel=True,
                **kinds,
            )

        self.model0 = nnx.Dict({"1": nnx.Conv(3, one, (7, 7), padding="VALID", **kinds)})
        self.model1 = nnx.Dict({"0": halving(one), "3": halving(two)})
        self.model2 = nnx.List([Residual(four, cfg, rngs=rngs) for _ in range(cfg.blocks)])
        self.model3 = nnx.Dict({"0": doubling(four), "3": doubling(two)})
        self.model4 = nnx.Dict({"1": nnx.Conv(one, 1, (7, 7), padding="VALID", **kinds)})

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 1"]:
        """Lines in [0, 1]: 0 is ink, 1 is paper.

        Args:
            pixels: RGB in [0, 1].

        Raises:
            ValueError: sides that cannot be halved twice, or are too short to be mirrored.
        """
        sides = pixels.shape[1:3]
        if any(side % STEP for side in sides) or min(sides) < LEAST:
            raise ValueError(
                f"Informative Drawings: sides must be multiples of {STEP}, at least {LEAST}, got "
                f"{sides[0]} x {sides[1]}"
            )
        x = _mirrored(pixels.astype(self.cfg.dtype), 3)
        x = nnx.relu(instance_norm(self.model0["1"](x)))
        for layer in self.model1.values():
            x = nnx.relu(instance_norm(layer(x)))
        for block in self.model2:
            x = block(x)
        for layer in self.model3.values():
            x = nnx.relu(instance_norm(layer(x)))
        made = self.model4["1"](_mirrored(x, 3))
        return jax.nn.sigmoid(made.astype(jnp.float32))


class InformativeDrawingsMethod:
    """ControlNet's way from a picture to lines, in the picture's own proportions."""

    name = "informative-drawings"

    def __init__(self, network: InformativeDrawings, side: int = SIDE):
        """
        Args:
            side: of the picture's shorter side in pixels.

        Raises:
            ValueError: it is shorter than what sides are rounded to.
        """
        if side < MULTIPLE:
            raise ValueError(
                f"Informative Drawings: the size must be at least {MULTIPLE}, got {side}"
            )
        self.settings = f"side {side}"
        self._side, self._network = side, Compiled(network)

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the network sees a picture."""
        scale = self._scale(shape)
        height, width = (max(round(scale * side / MULTIPLE), 1) * MULTIPLE for side in shape)
        return height, width

    def _scale(self, shape: tuple[int, int]) -> float:
        """By how much a picture is enlarged."""
        return min(self._side / min(shape), LONGEST * self._side / max(shape))

    def shrink(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture as the network sees it."""
        shape = picture.shape[0], picture.shape[1]
        way = cv2.INTER_LANCZOS4 if self._scale(shape) > 1 else cv2.INTER_AREA
        return cv2.resize(picture, self.size(shape)[::-1], interpolation=way)

    def draw(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Lines, 0 = ink, 1 = paper, of RGB in [0, 1]."""
        return self._network(pixels[None])[0, :, :, 0]

    def restore(
        self, lines: Float32[np.ndarray, "h w"], shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Lines at the picture's own size, 0..255; truncated before they are resized."""
        small = (lines * np.float32(255)).astype(np.uint8)
        return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
