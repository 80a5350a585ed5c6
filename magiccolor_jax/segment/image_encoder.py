"""SAM's image encoder: a plain ViT with windows and relative positions (arXiv:2203.16527)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from magiccolor_jax.segment.sam_config import ENCODER_EPS, SAMConfig

QUERY_ROWS = 4
"""Rows of queries that attention over a whole picture takes at once: 256 of 64 x 64 tokens."""


def map_norm(width: int, cfg: SAMConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the channels, as the encoder and all maps have it."""
    return nnx.LayerNorm(
        width, epsilon=ENCODER_EPS, use_fast_variance=False, rngs=rngs, **cfg.kinds
    )


class PatchEmbed(nnx.Module):
    """Pixels -> a token per patch."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        patch = (cfg.patch_size, cfg.patch_size)
        self.proj = nnx.Conv(
            3, cfg.width, patch, strides=patch, padding="VALID", rngs=rngs, **cfg.kinds
        )

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        return self.proj(pixels)


class Attention(nnx.Module):
    """Self-attention on a square of tokens, with a learned bias per difference of rows and columns.

    The bias of a pair is the query's product with the embedding of the rows' difference, plus that
    of the columns' (arXiv:2112.01526, equation 4).
    """

    def __init__(self, cfg: SAMConfig, side: int, *, rngs: nnx.Rngs):
        self.heads = cfg.heads
        self.qkv = nnx.Linear(cfg.width, 3 * cfg.width, rngs=rngs, **cfg.kinds)
        self.proj = nnx.Linear(cfg.width, cfg.width, rngs=rngs, **cfg.kinds)

        def table():
            shape = (2 * side - 1, cfg.width // cfg.heads)
            return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape, cfg.param_dtype))

        self.rel_pos_h, self.rel_pos_w = table(), table()

    def __call__(self, x: Float[Array, "B S S C"]) -> Float[Array, "B S S C"]:
        batch, side = x.shape[:2]
        qkv = self.qkv(x).reshape(batch, side, side, 3, self.heads, -1)
        query, key, value = (jnp.moveaxis(qkv[:, :, :, i], 3, 1) for i in range(3))  # [B N S S D]
        apart = _differences(side)
        tables = (self.rel_pos_h[...][apart], self.rel_pos_w[...][apart])  # [S S D]
        rows, columns = (table.astype(query.dtype) for table in tables)
        down = jnp.einsum("bnhwd,hkd->bnhwk", query, rows)
        across = jnp.einsum("bnhwd,wkd->bnhwk", query, columns)
        query = query * query.shape[-1] ** -0.5

        def some_rows(part):
            query, down, across = part  # [B N r S D], [B N r S S], [B N r S S]
            scores = jnp.einsum("bnhwd,bnijd->bnhwij", query, key)
            scores += down[..., :, None] + across[..., None, :]
            shape = scores.shape
            flat = scores.astype(jnp.float32).reshape(*shape[:4], -1)
            weights = jax.nn.softmax(flat).astype(value.dtype).reshape(shape)
            return jnp.einsum("bnhwij,bnijd->bnhwd", weights, value)

        mixed = _by_rows(some_rows, (query, down, across))
        return self.proj(jnp.moveaxis(mixed, 1, 3).reshape(x.shape))


def _differences(side: int) -> Int[np.ndarray, "S S"]:
    """Place in the tables of each query's and key's difference along an axis."""
    return np.arange(side)[:, None] - np.arange(side) + side - 1


def _by_rows(function, parts: tuple[Array, ...]) -> Array:
    """`function` on a few rows of queries at a time, so that no [L L] scores exist."""
    side = parts[0].shape[2]
    if side <= 4 * QUERY_ROWS or side % QUERY_ROWS:
        return function(parts)

    def cut(x):
        split = x.reshape(*x.shape[:2], side // QUERY_ROWS, QUERY_ROWS, *x.shape[3:])
        return jnp.moveaxis(split, 2, 0)

    found = jnp.moveaxis(lax.map(function, tuple(map(cut, parts))), 0, 2)
    return found.reshape(*found.shape[:2], side, *found.shape[4:])


class MLP(nnx.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        inside = cfg.width * cfg.mlp_ratio
        self.lin1 = nnx.Linear(cfg.width, inside, rngs=rngs, **cfg.kinds)
        self.lin2 = nnx.Linear(inside, cfg.width, rngs=rngs, **cfg.kinds)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        return self.lin2(jax.nn.gelu(self.lin1(x), approximate=False))


class Block(nnx.Module):
    """Pre-norm transformer block, within windows or over the whole picture."""

    def __init__(self, cfg: SAMConfig, window: int, *, rngs: nnx.Rngs):
        self.window = window
        self.norm1 = map_norm(cfg.width, cfg, rngs=rngs)
        self.attn = Attention(cfg, window or cfg.grid, rngs=rngs)
        self.norm2 = map_norm(cfg.width, cfg, rngs=rngs)
        self.mlp = MLP(cfg, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        seen = self.norm1(x)
        x = x + (self._in_windows(seen) if self.window else self.attn(seen))
        return x + self.mlp(self.norm2(x))

    def _in_windows(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Attention inside each window; the last ones are filled up with zeros, which are seen."""
        batch, height, width, channels = x.shape
        side = self.window
        x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        cut = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
        mixed = self.attn(cut.reshape(-1, side, side, channels))
        whole = mixed.reshape(batch, rows, columns, side, side, channels).swapaxes(2, 3)
        return whole.reshape(x.shape)[:, :height, :width]


class ImageEncoder(nnx.Module):
    """Picture -> embedding, once for all prompts."""

    def __init__(self, cfg: SAMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        shape = (1, cfg.grid, cfg.grid, cfg.width)
        table = nnx.initializers.normal(0.02)(rngs.params(), shape, cfg.param_dtype)
        self.pos_embed = nnx.Param(table)
        self.patch_embed = PatchEmbed(cfg, rngs=rngs)
        self.blocks = nnx.List(
            [
                Block(cfg, 0 if index in cfg.global_blocks else cfg.window, rngs=rngs)
                for index in range(cfg.depth)
            ]
        )
        plain = {"use_bias": False, "rngs": rngs, **cfg.kinds}
        self.neck = nnx.List(
            [
                nnx.Linear(cfg.width, cfg.channels, **plain),
                map_norm(cfg.channels, cfg, rngs=rngs),
                nnx.Conv(cfg.channels, cfg.channels, (3, 3), padding=1, **plain),
                map_norm(cfg.channels, cfg, rngs=rngs),
            ]
        )

    def __call__(self, pixels: Float[Array, "B S S 3"]) -> Float[Array, "B g g C"]:
        """Embeds normalised pixels.

        Raises:
            ValueError: not squares of `image_size`.
        """
        side = self.cfg.image_size
        if pixels.shape[1:3] != (side, side):
            raise ValueError(
                f"SAM: the image encoder sees squares of {side} pixels, got {pixels.shape[1]} x "
                f"{pixels.shape[2]}; resize the longer side and fill up the other"
            )
        x = self.patch_embed(pixels)
        x = x + self.pos_embed[...].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        for layer in self.neck:
            x = layer(x)
        return x
