"""Normalisations of feature maps that learn nothing, or nothing any more; computed in f32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

BATCH_EPSILON = 1e-3
"""Of every batch normalisation here: Keras' default, which the ports to PyTorch keep."""

INSTANCE_EPSILON = 1e-5
"""PyTorch's default."""


class FrozenBatchNorm(nnx.Module):
    """Batch normalisation by the statistics of a training that is over; they are parameters."""

    def __init__(self, width: int, param_dtype: DTypeLike):
        self.scale = nnx.Param(jnp.ones(width, param_dtype))
        self.bias = nnx.Param(jnp.zeros(width, param_dtype))
        self.running_mean = nnx.Param(jnp.zeros(width, param_dtype))
        self.running_var = nnx.Param(jnp.ones(width, param_dtype))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Any range; returned in the dtype of `x`."""
        leaves = (self.scale, self.bias, self.running_mean, self.running_var)
        scale, bias, mean, variance = (leaf[...].astype(jnp.float32) for leaf in leaves)
        factor = scale * jax.lax.rsqrt(variance + BATCH_EPSILON)  # [C]
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


def instance_norm(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Every channel of every picture to mean 0 and variance 1 (PyTorch's InstanceNorm2d without
    parameters and running statistics); returned in the dtype of `x`."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + INSTANCE_EPSILON)).astype(x.dtype)
