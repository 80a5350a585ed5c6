"""3x3 convolutions, and changes of resolution (diffusers `downsampling.py`, `upsampling.py`)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from magiccolor_jax.nn.plain import is_plain

Padding = Literal["both", "end"]
PADDINGS = {"both": ((1, 1), (1, 1)), "end": ((0, 1), (0, 1))}
"""UNet and ControlNet pad a stride-2 convolution on both sides, the VAE's encoder at the end."""


WIDE = 48
"""Channels, of both sides, from where on a kernel's gradient is made of products on CPU."""


def convolve(
    x: Float[Array, "B h w C"], kernel: Float[Array, "3 3 C D"], *geometry: Any, **options: Any
) -> Float[Array, "B h2 w2 D"]:
    """`lax.conv_general_dilated` for a convolution that keeps the resolution.

    XLA's CPU program for the gradient of the kernel takes two to three times as long as the nine
    products of matrices that it is the sum of, so there it is made of these.
    """
    if jax.default_backend() != "cpu" or is_plain() or min(kernel.shape[2:]) < WIDE:
        return lax.conv_general_dilated(x, kernel, *geometry, **options)
    return _convolve(x, kernel)


@jax.custom_vjp
def _convolve(x: Array, kernel: Array) -> Array:
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), PADDINGS["both"], dimension_numbers=names)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = saved
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), *PADDINGS["both"], (0, 0)))
    slopes = slope.reshape(-1, slope.shape[-1])
    parts = [
        jnp.matmul(
            padded[:, top : top + height, left : left + width].reshape(len(slopes), -1).T,
            slopes,
            preferred_element_type=jnp.float32,
        )
        for top in range(3)
        for left in range(3)
    ]
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _convolve(slope, turned), jnp.stack(parts).reshape(kernel.shape).astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


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
        conv_general_dilated=convolve
        if (stride, padding) == (1, "both")
        else lax.conv_general_dilated,
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
