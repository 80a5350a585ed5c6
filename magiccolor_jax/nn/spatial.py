"""Changes of resolution (diffusers `downsampling.py`, `upsampling.py`)."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Padding = Literal["both", "end"]
PADDINGS = {"both": ((1, 1), (1, 1)), "end": ((0, 1), (0, 1))}
"""UNet and ControlNet pad a stride-2 convolution on both sides, the VAE's encoder at the end."""


def conv3x3(
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    padding: Padding = "both",
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A 3x3 convolution with PyTorch's explicit padding ("SAME" differs at stride 2)."""
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        strides=stride,
        padding=PADDINGS[padding],
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


class Downsample(nnx.Module):
    """Halves the resolution by a 3x3 convolution of stride 2."""

    def __init__(self, channels: int, *, padding: Padding = "both", **kinds):
        self.conv = conv3x3(channels, channels, stride=2, padding=padding, **kinds)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles the resolution by nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int, **kinds):
        self.conv = conv3x3(channels, channels, **kinds)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
        doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return self.conv(doubled)
