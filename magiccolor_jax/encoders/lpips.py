"""LPIPS, the learned perceptual distance of two pictures (arXiv:1801.03924, version 0.1).

Backbones under torchvision's names (`models/alexnet.py`, `models/vgg.py`, layout D), heads under
those of the authors' `lpips` (`lin0`, ... `lin4`).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
"""What the authors normalise pixels of [-1, 1] by."""

EPS = 1e-10
"""Added to the length of a feature vector before it is divided by it."""


class Conv(NamedTuple):
    """A convolution followed by a ReLU."""

    index: int
    """Its number among torchvision's `features`."""
    window: int = 3
    stride: int = 1
    padding: int = 1


class Block(NamedTuple):
    """Layers up to an activation that counts."""

    pool: int
    """Side of the max pool of stride 2 that comes first; 0: none."""
    convs: tuple[Conv, ...]


BACKBONES = {
    "alex": (
        Block(0, (Conv(0, window=11, stride=4, padding=2),)),
        Block(3, (Conv(3, window=5, padding=2),)),
        Block(3, (Conv(6),)),
        Block(0, (Conv(8),)),
        Block(0, (Conv(10),)),
    ),
    "vgg": tuple(
        Block(pool, tuple(map(Conv, convs)))
        for pool, convs in (
            (0, (0, 2)),
            (2, (5, 7)),
            (2, (10, 12, 14)),
            (2, (17, 19, 21)),
            (2, (24, 26, 28)),
        )
    ),
}
"""AlexNet and VGG-16 as the authors cut them: five activations of each."""

WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
"""Channels of each block."""


@dataclass(frozen=True, kw_only=True)
class LPIPSConfig:
    """Which backbone, and its channels."""

    backbone: str = "alex"
    """`alex` or `vgg`."""
    widths: tuple[int, ...] = WIDTHS["alex"]
    """Channels of each block."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; the distance itself is taken in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"LPIPSConfig: backbone must be one of {tuple(BACKBONES)}, got {self.backbone!r}"
            )
        if len(self.widths) != len(self.blocks) or min(self.widths) < 1:
            raise ValueError(
                f"LPIPSConfig: widths must be {len(self.blocks)} positive numbers, "
                f"got {self.widths}"
            )

    @classmethod
    def alex(cls, **overrides: Any) -> "LPIPSConfig":
        """The usual one (2.5 M parameters)."""
        return cls._official("alex", **overrides)

    @classmethod
    def vgg(cls, **overrides: Any) -> "LPIPSConfig":
        """On VGG-16 (14.7 M parameters)."""
        return cls._official("vgg", **overrides)

    @classmethod
    def _official(cls, backbone: str, **overrides: Any) -> "LPIPSConfig":
        sizes: dict[str, Any] = {"backbone": backbone, "widths": WIDTHS[backbone]}
        return cls(**(sizes | overrides))

    @classmethod
    def nano(cls, **overrides: Any) -> "LPIPSConfig":
        """Test-sized."""
        sizes: dict[str, Any] = {"widths": (4, 6, 8, 10, 12)}
        return cls(**(sizes | overrides))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The backbone's layers."""
        return BACKBONES[self.backbone]

    @property
    def smallest(self) -> int:
        """Shortest side in pixels that reaches the last activation."""
        side = 1
        for block in reversed(self.blocks):
            for conv in reversed(block.convs):
                side = max((side - 1) * conv.stride + conv.window - 2 * conv.padding, 1)
            if block.pool:
                side = (side - 1) * 2 + block.pool
        return side


class LPIPS(nnx.Module):
    """Two pictures -> their distance."""

    def __init__(self, cfg: LPIPSConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        # A yardstick must not change with the device.
        kinds: dict[str, Any] = {
            "param_dtype": cfg.param_dtype,
            "precision": "highest",
            "rngs": rngs,
        }
        self.features = nnx.Dict()
        inputs = 3
        for width, block in zip(cfg.widths, cfg.blocks, strict=True):
            for conv in block.convs:
                self.features[str(conv.index)] = nnx.Conv(
                    inputs,
                    width,
                    (conv.window, conv.window),
                    strides=conv.stride,
                    padding=conv.padding,
                    dtype=cfg.dtype,
                    **kinds,
                )
                inputs = width
        for number, width in enumerate(cfg.widths):
            head = nnx.Linear(width, 1, use_bias=False, dtype=jnp.float32, **kinds)
            setattr(self, f"lin{number}", head)

    def __call__(
        self, pictures: Float[Array, "B H W 3"], truths: Float[Array, "B H W 3"]
    ) -> Float[Array, " B"]:
        """Distance of each pair, from 0.

        Args:
            pictures: RGB in [0, 1].
            truths: the same; which of the two is which makes no difference.

        Raises:
            ValueError: the pictures are too small for the backbone.
        """
        side = min(pictures.shape[1:3])
        if side < self.cfg.smallest:
            raise ValueError(
                f"LPIPS ({self.cfg.backbone}) needs sides of at least {self.cfg.smallest} pixels, "
                f"got {pictures.shape[1]} x {pictures.shape[2]}"
            )
        both = self.activations(jnp.concatenate([pictures, truths]))
        total = jnp.zeros(pictures.shape[0])
        for number, found in enumerate(both):
            ours, theirs = jnp.split(_unit(found.astype(jnp.float32)), 2)
            head = getattr(self, f"lin{number}")
            total += head(jnp.square(ours - theirs)).mean(axis=(1, 2, 3))
        return total

    def activations(self, pixels: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B _ _ _"], ...]:
        """The five activations that count.

        Args:
            pixels: RGB in [0, 1]; the authors' normalisation is applied here.
        """
        x = (2 * pixels.astype(jnp.float32) - 1 - SHIFT) / SCALE
        found = []
        for block in self.cfg.blocks:
            if block.pool:
                x = nnx.max_pool(x, (block.pool, block.pool), strides=(2, 2), padding="VALID")
            for conv in block.convs:
                x = nnx.relu(self.features[str(conv.index)](x))
            found.append(x)
        return tuple(found)


def _unit(features: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Feature vectors of length 1."""
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + EPS)
