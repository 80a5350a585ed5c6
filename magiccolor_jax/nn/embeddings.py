"""Timestep embedding (diffusers `embeddings.py`: Timesteps, TimestepEmbedding)."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

MAX_PERIOD = 10_000


def sinusoidal_embedding(timesteps: Int[Array, " B"], channels: int) -> Float[Array, "B C"]:
    """[cos(t f) | sin(t f)], f from 1 down to about 1 / MAX_PERIOD (flip_sin_to_cos, shift 0)."""
    half = channels // 2
    frequencies = np.exp(-np.log(MAX_PERIOD) * np.arange(half) / half).astype(np.float32)
    angles = timesteps[:, None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nnx.Module):
    """Linear, SiLU, Linear on the sinusoidal embedding."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.channels = channels
        self.linear_1 = nnx.Linear(channels, width, **kinds)
        self.linear_2 = nnx.Linear(width, width, **kinds)

    def __call__(self, timesteps: Int[Array, " B"]) -> Float[Array, "B E"]:
        return self.linear_2(
            nnx.silu(self.linear_1(sinusoidal_embedding(timesteps, self.channels)))
        )
