"""The residual block of UNet, ControlNet and VAE (diffusers `resnet.py` ResnetBlock2D)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from magiccolor_jax.nn.spatial import conv3x3


class GroupNorm(nnx.GroupNorm):
    """PyTorch's GroupNorm: two-pass variance, statistics in f32 whatever the dtype is.

    Sums run over positions first and over a group's channels last: XLA's CPU programs take a
    quarter of the time that Flax's own reduction over both takes.
    """

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        wide = x.astype(jnp.float32)
        centred = wide - self._group_means(wide)
        scale = lax.rsqrt(self._group_means(jnp.square(centred)) + self.epsilon)
        assert self.scale is not None and self.bias is not None, "both are used by default"
        made = centred * (scale * self.scale[...]) + self.bias[...]
        return made.astype(self.dtype)

    def _group_means(self, x: Float[Array, "B h w C"]) -> Float[Array, "B 1 1 C"]:
        """Of every position and channel of a group, for each of its channels."""
        batch, channels = x.shape[0], x.shape[-1]
        means = jnp.mean(x, axis=(1, 2)).reshape(batch, self.num_groups, -1).mean(axis=2)
        return jnp.repeat(means, channels // self.num_groups, axis=1)[:, None, None, :]


def group_norm(
    channels: int,
    groups: int,
    epsilon: float,
    *,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> GroupNorm:
    """A `GroupNorm` whose epsilon has no default: networks differ in it."""
    return GroupNorm(
        channels,
        groups,
        epsilon=epsilon,
        use_fast_variance=False,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


class ResnetBlock(nnx.Module):
    """GroupNorm, SiLU, conv, (+ time), GroupNorm, SiLU, conv, (+ shortcut)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        time: int | None,
        groups: int,
        epsilon: float,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.norm1 = group_norm(inputs, groups, epsilon, **kinds)
        self.conv1 = conv3x3(inputs, outputs, **kinds)
        self.time_emb_proj = None if time is None else nnx.Linear(time, outputs, **kinds)
        self.norm2 = group_norm(outputs, groups, epsilon, **kinds)
        self.conv2 = conv3x3(outputs, outputs, **kinds)
        self.conv_shortcut = (
            None if inputs == outputs else nnx.Conv(inputs, outputs, (1, 1), **kinds)
        )

    def __call__(
        self, x: Float[Array, "B h w C"], time: Float[Array, "B E"] | None = None
    ) -> Float[Array, "B h w D"]:
        hidden = self.conv1(nnx.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            assert time is not None, "a block with a time map is given the time"
            hidden = hidden + self.time_emb_proj(nnx.silu(time))[:, None, None, :]
        hidden = self.conv2(nnx.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
