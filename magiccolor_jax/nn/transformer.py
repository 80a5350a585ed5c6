"""The transformer of UNet and ControlNet (diffusers `attention.py`, `transformer_2d.py`).

A block returns its normed self-attention input beside its output: that is the reference bank of
MagicColor, handed over as a value. What depends on the conditions alone (`project`) is computed
once and passed in as a `BlockCache`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from magiccolor_jax.nn.attention import Projections, attend
from magiccolor_jax.nn.resnet import group_norm
from magiccolor_jax.types import BlockCache, KeysValues

GROUP_NORM_EPSILON = 1e-6
LAYER_NORM_EPSILON = 1e-5


class FeedForward(nnx.Module):
    """GEGLU with the exact (erf) GELU, then a linear map back."""

    def __init__(self, channels: int, *, dtype, param_dtype, rngs: nnx.Rngs):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.proj_in = nnx.Linear(channels, 8 * channels, **kinds)
        self.proj_out = nnx.Linear(4 * channels, channels, **kinds)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        hidden, gate = jnp.split(self.proj_in(x), 2, axis=-1)
        return self.proj_out(hidden * jax.nn.gelu(gate, approximate=False))


class TransformerBlock(nnx.Module):
    """Self-attention (with the reference's tokens), cross-attention, feed-forward."""

    def __init__(
        self, channels: int, context: int, heads: int, *, dtype, param_dtype, rngs: nnx.Rngs
    ):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        norm = {"epsilon": LAYER_NORM_EPSILON, "use_fast_variance": False, **kinds}
        self.norm1 = nnx.LayerNorm(channels, **norm)
        self.attn1 = Projections(channels, channels, heads, **kinds)
        self.norm2 = nnx.LayerNorm(channels, **norm)
        self.attn2 = Projections(channels, context, heads, **kinds)
        self.norm3 = nnx.LayerNorm(channels, **norm)
        self.ff = FeedForward(channels, **kinds)

    def project(
        self,
        context: Float[Array, "B S E"],
        mask: Bool[Array, "B S"] | None,
        reference: Float[Array, "R T C"] | None,
        sees: Bool[Array, " R"] | None = None,
    ) -> BlockCache:
        """Keys and values of the conditions under this block's weights."""
        bank = None
        if reference is not None:
            shown = None if sees is None else jnp.broadcast_to(sees[:, None], reference.shape[:2])
            bank = KeysValues(*self.attn1.keys_values(reference), shown)
        return BlockCache(KeysValues(*self.attn2.keys_values(context), mask), bank)

    def __call__(
        self, x: Float[Array, "B L C"], cache: BlockCache
    ) -> tuple[Float[Array, "B L C"], Float[Array, "B L C"]]:
        """Returns the output and norm1(x)."""
        normed = self.norm1(x)
        x = x + self._attend_to_self(normed, cache.reference)
        x = x + self._attend_to_context(self.norm2(x), cache.context)
        return x + self.ff(self.norm3(x)), normed

    def _attend_to_self(self, normed: Array, reference: KeysValues | None) -> Array:
        """Own tokens for all rows, plus the reference's for the last rows (release.md §2.2)."""
        query = self.attn1.split(self.attn1.to_q(normed))
        key, value = self.attn1.keys_values(normed)
        if reference is None:
            return self.attn1.merge(attend(query, key, value))
        alone = normed.shape[0] - reference.key.shape[0]  # rows that do not see the reference
        mask = reference.mask
        if mask is not None:
            mask = jnp.concatenate([jnp.ones((mask.shape[0], key.shape[1]), bool), mask], axis=1)
        joined = attend(
            query[alone:],
            jnp.concatenate([key[alone:], reference.key], axis=1),
            jnp.concatenate([value[alone:], reference.value], axis=1),
            mask=mask,
        )
        if alone:
            own = attend(query[:alone], key[:alone], value[:alone])
            joined = jnp.concatenate([own, joined], axis=0)
        return self.attn1.merge(joined)

    def _attend_to_context(self, normed: Array, context: KeysValues) -> Array:
        if context.key.shape[1] == 1:  # softmax over one key is 1: a constant per sample
            return self.attn2.merge(context.value)
        query = self.attn2.split(self.attn2.to_q(normed))
        return self.attn2.merge(attend(query, context.key, context.value, mask=context.mask))


class Transformer2D(nnx.Module):
    """GroupNorm, projection in, one block over the pixels, projection out, residual."""

    def __init__(
        self,
        channels: int,
        context: int,
        heads: int,
        groups: int,
        *,
        dtype,
        param_dtype,
        rngs: nnx.Rngs,
    ):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.norm = group_norm(channels, groups, GROUP_NORM_EPSILON, **kinds)
        self.proj_in = nnx.Linear(channels, channels, **kinds)
        self.transformer_blocks = nnx.List([TransformerBlock(channels, context, heads, **kinds)])
        self.proj_out = nnx.Linear(channels, channels, **kinds)

    @property
    def block(self) -> TransformerBlock:
        """SD1.5 has exactly one block per transformer."""
        return self.transformer_blocks[0]

    def __call__(
        self, x: Float[Array, "B h w C"], cache: BlockCache
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B L C"]]:
        """Returns the output and the block's norm1(hidden)."""
        tokens = self.proj_in(self.norm(x)).reshape(x.shape[0], -1, x.shape[-1])  # [B L C]
        tokens, normed = self.block(tokens, cache)
        return self.proj_out(tokens).reshape(x.shape) + x, normed
