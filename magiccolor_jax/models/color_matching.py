"""Colour matching: the denoiser's features replaced by the reference's nearest (release.md §5).

Two modes that change something. `release` is the published code, slips included: the guidance pair
is averaged, and (y, x) is used as (x, y) on both sides. `fixed` is what the text describes: each
row on its own, right coordinates, only where an instance is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

RELEASE_POINTS = 1000
"""How many source positions the release draws (of 1024 at 512 px)."""


class Matching(NamedTuple):
    """What one evaluation needs; exactly one of `order` and `inside` is given."""

    source: Float[Array, "R h w C"]
    """The reference UNet's features after the same block. `release`: one row per row of the batch;
    `fixed`: R rows that serve the last R rows."""
    order: Int[Array, "B P"] | None = None
    """`release`: row-major source positions in order of writing (later ones win)."""
    inside: Bool[Array, "R h w"] | None = None
    """`fixed`: True where an instance is."""
    nearest: Int[Array, "B P"] | None = None
    """`release`: target position of each source position, instead of searching (parity tests: the
    margins between neighbours go down to 1e-7)."""


def release_order(key: Array, positions: int) -> Int[Array, " P"]:
    """A random order of at most RELEASE_POINTS of `positions` source positions."""
    return jax.random.permutation(key, positions)[:RELEASE_POINTS]


def nearest_positions(
    query: Float[Array, "B P C"], among: Float[Array, "B Q C"]
) -> Int[Array, "B P"]:
    """For each query vector the position of the most similar one (cosine, f32)."""
    return jnp.argmax(jnp.einsum("bpc,bqc->bpq", unit(query), unit(among)), axis=-1)


def unit(x: Shaped[Array, "*n C"]) -> Float[Array, "*n C"]:
    """L2-normalised over channels, in f32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def match_colors(target: Float[Array, "B h w C"], matching: Matching) -> Float[Array, "B h w C"]:
    """The denoiser's features with those of the reference written over them."""
    if matching.order is not None:
        return match_release(target, matching)[0]
    return match_fixed(target, matching)


def match_release(
    target: Float[Array, "B h w C"], matching: Matching
) -> tuple[Float[Array, "B h w C"], Int[Array, "I P"]]:
    """The released code's replacement, per image over its own guidance pair.

    Rows are ordered [unconditional of all I images | conditional of all I images]; without guidance
    there is one row per image.

    Returns:
        The new features (equal for the rows of one image) and the nearest target positions.

    Raises:
        ValueError: the map is not square (the swapped coordinates would leave it).
    """
    assert matching.order is not None, "match_colors chose this mode by it"
    rows, height, width, channels = target.shape
    if height != width or matching.source.shape != target.shape:
        raise ValueError(
            "color_matching 'release' swaps rows and columns: expected square maps of one shape "
            f"for page and canvas, got {target.shape} and {matching.source.shape}; use page_fit "
            "'squeeze512', or color_matching 'fixed' or 'off'"
        )
    images = matching.order.shape[0]

    def averaged(x):  # [B h w C] -> [I h*w C]
        return x.reshape(rows // images, images, height * width, channels).mean(0)

    source, new = averaged(matching.source), averaged(target)
    nearest = matching.nearest
    if nearest is None:
        drawn = jnp.take_along_axis(source, matching.order[..., None], axis=1)  # [I P C]
        nearest = nearest_positions(drawn, new)
    read = _swapped(matching.order, width)  # [I P]
    written = _swapped(nearest, width)
    new = jax.vmap(_overwrite)(new, source, read, written)
    new = new.reshape(images, height, width, channels).astype(target.dtype)
    return jnp.tile(new, (rows // images, 1, 1, 1)), nearest


def _swapped(position: Array, width: int) -> Array:
    """Row-major position of (x, y) where `position` is that of (y, x), on a square map."""
    return position % width * width + position // width


def _overwrite(new: Array, source: Array, read: Array, written: Array) -> Array:
    """new[written[p]] = source[read[p]] for p in order; the last writer of a place wins.

    A scatter with repeated indices has no order on accelerators, so each place asks for its last
    writer instead.
    """
    ranks = jnp.full(new.shape[0], -1).at[written].max(jnp.arange(read.shape[0]))  # [Q]
    chosen = source[read[jnp.maximum(ranks, 0)]]
    return jnp.where(ranks[:, None] >= 0, chosen, new)


def match_fixed(target: Float[Array, "B h w C"], matching: Matching) -> Float[Array, "B h w C"]:
    """Each instance pixel of the last R rows takes its most similar source feature."""
    assert matching.inside is not None, "exactly one of order and inside is given"
    rows = matching.source.shape[0]
    served = target[target.shape[0] - rows :]
    flat = served.reshape(rows, -1, served.shape[-1])
    source = matching.source.reshape(rows, -1, served.shape[-1])
    nearest = nearest_positions(flat, source)  # [R h*w]
    found = jnp.take_along_axis(source, nearest[..., None], axis=1).reshape(served.shape)
    mixed = jnp.where(matching.inside[..., None], found.astype(target.dtype), served)
    return jnp.concatenate([target[: target.shape[0] - rows], mixed], axis=0)
