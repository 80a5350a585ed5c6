"""Softmax attention: one entry, the fastest exact implementation of each platform behind it.

CPU: one head at a time, a few hundred queries at a time, so that the scores stay in cache and every
product is a plain matrix product; no [N L S] tensor exists. GPU: cuDNN's fused kernel. TPU: Pallas'
flash kernel. `scripts/bench_attention.py` measures the CPU path against XLA's own.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from magiccolor_jax.nn.plain import is_plain

Implementation = Literal["auto", "chunked", "xla", "cudnn", "flash"]

QUERY_CHUNK = 256
"""Queries per step of the CPU path: 256 x 8192 scores in f32 are 8 MB, about one core's cache."""

CUDNN_WIDTH = 128
"""Widest head of cuDNN's fused kernel before Hopper; SD1.5's 160-wide heads see few tokens."""

LARGE, HUGE = 512**2, 8192**2
"""Scores per head from where on CPU and TPU leave XLA's own program, and where its [N L S] scores
would take gigabytes on a GPU (the tokens of 16 references as context)."""

FLASH_BLOCK = 128
"""Tile of the TPU kernel: sequence lengths and head widths are padded to a multiple of it."""


def attend(
    query: Float[Array, "B L N D"],
    key: Float[Array, "B S N D"],
    value: Float[Array, "B S N D"],
    *,
    mask: Bool[Array, "B S"] | None = None,
    causal: bool = False,
    implementation: Implementation = "auto",
) -> Float[Array, "B L N D"]:
    """softmax(query key^T / sqrt(D)) value, with scores and softmax in f32.

    Args:
        mask: False where a key does not exist. A row without any key gives the mean of the values.
        causal: query l sees keys 0..l only.
        implementation: `auto` takes what suits the default backend, the dtype and the arguments;
            `xla` in programs that are counted (`nn/plain.py`).

    Raises:
        ValueError: `chunked` or `flash` is asked for causal attention, which they cannot do.
    """
    if implementation == "auto":
        plain = causal or is_plain()
        implementation = "xla" if plain else _choose(query, key, mask is not None)
    if causal and implementation in ("chunked", "flash"):
        raise ValueError(
            f"attention: implementation {implementation!r} has no causal mask; use 'xla' or 'auto'"
        )
    if implementation == "chunked":
        return _attend_chunked(query, key, value, mask)
    if implementation == "flash":
        return _attend_flash(query, key, value, mask)
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=None if mask is None else mask[:, None, None, :],
        is_causal=causal,
        implementation="cudnn" if implementation == "cudnn" else "xla",
    )


def _choose(query: Array, key: Array, masked: bool) -> Implementation:
    """The fastest implementation that honours the arguments on the default backend."""
    backend = jax.default_backend()
    scores = query.shape[1] * key.shape[1]
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    if backend == "cpu" and scores > LARGE:
        return "chunked"
    width = query.shape[-1]
    if backend == "gpu" and half and not masked and width % 8 == 0 and width <= CUDNN_WIDTH:
        return "cudnn"
    if backend == "gpu" and scores > HUGE:
        return "chunked"
    if backend == "tpu" and scores > LARGE:
        return "flash"
    return "xla"


def _attend_chunked(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Exact attention over [QUERY_CHUNK S] blocks of scores, one head after another."""
    batch, length, heads, width = query.shape
    chunk = min(QUERY_CHUNK, length)
    chunks = -(-length // chunk)
    padded = jnp.pad(query * width**-0.5, ((0, 0), (0, chunks * chunk - length), (0, 0), (0, 0)))
    queries = _head_major(padded).reshape(batch * heads, chunks, chunk, width)
    keep = jnp.ones((batch, key.shape[1]), bool) if mask is None else mask
    keep = jnp.repeat(keep, heads, axis=0)  # [B*N S]

    def one_head(operands):
        q, k, v, keep_row = operands  # [chunks chunk D], [S D], [S D], [S]

        @jax.checkpoint  # the backward pass recomputes the scores instead of storing [N L S]
        def one_chunk(q_chunk):
            scores = jnp.dot(q_chunk, k.T, preferred_element_type=jnp.float32)  # [chunk S]
            if mask is not None:
                scores = jnp.where(keep_row, scores, jnp.finfo(jnp.float32).min)
            weights = jnp.exp(scores - scores.max(-1, keepdims=True))
            total = weights.sum(-1, keepdims=True)
            mixed = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
            return (mixed / total).astype(v.dtype)

        return lax.map(one_chunk, q)

    out = lax.map(one_head, (queries, _head_major(key), _head_major(value), keep))
    out = out.reshape(batch, heads, chunks * chunk, width)[:, :, :length]
    return out.transpose(0, 2, 1, 3)  # [B L N D]


def _head_major(x: Array) -> Array:
    """[B S N D] -> [B*N S D]."""
    return x.transpose(0, 2, 1, 3).reshape(-1, x.shape[1], x.shape[3])


def _attend_flash(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Pallas' TPU kernel on operands padded to its tiles; padding gets a segment of its own."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    def padded(x):  # [B S N D] -> [B N S' D']
        to_tile = [(0, -size % FLASH_BLOCK) for size in (x.shape[1], x.shape[3])]
        return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), *to_tile))

    q, k, v = padded(query), padded(key), padded(value)
    batch, length, keys = query.shape[0], query.shape[1], key.shape[1]
    exists = jnp.ones((batch, keys), bool) if mask is None else mask
    segments = flash.SegmentIds(
        q=jnp.broadcast_to(jnp.arange(q.shape[2]) < length, (batch, q.shape[2])).astype(jnp.int32),
        kv=jnp.pad(exists, ((0, 0), (0, k.shape[2] - keys))).astype(jnp.int32),
    )
    out = flash.flash_attention(q, k, v, segment_ids=segments, sm_scale=query.shape[-1] ** -0.5)
    return out.transpose(0, 2, 1, 3)[:, :length, :, : query.shape[3]]


class Projections(nnx.Module):
    """The four linear maps of diffusers' Attention, heads split and merged (no mask, no norm)."""

    def __init__(
        self,
        channels: int,
        context: int,
        heads: int,
        *,
        bias: bool = False,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kinds = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.heads = heads
        self.to_q = nnx.Linear(channels, channels, use_bias=bias, **kinds)
        self.to_k = nnx.Linear(context, channels, use_bias=bias, **kinds)
        self.to_v = nnx.Linear(context, channels, use_bias=bias, **kinds)
        self.to_out = nnx.Linear(channels, channels, **kinds)

    def split(self, x: Float[Array, "B S C"]) -> Float[Array, "B S N D"]:
        """Channels -> heads."""
        return x.reshape(*x.shape[:2], self.heads, -1)

    def keys_values(
        self, x: Float[Array, "B S C"]
    ) -> tuple[Float[Array, "B S N D"], Float[Array, "B S N D"]]:
        """What other tokens may attend to."""
        return self.split(self.to_k(x)), self.split(self.to_v(x))

    def merge(self, x: Float[Array, "B L N D"]) -> Float[Array, "B L C"]:
        """Heads -> channels, then the output map."""
        return self.to_out(x.reshape(*x.shape[:2], -1))
