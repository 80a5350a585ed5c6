"""Colour matching as a loss (arXiv:2503.16948): a region takes its reference's colours.

Each patch of the target inside an instance looks for its nearest patch, by the cosine of DINOv2
features, among those of its own reference; the colour found there is what x0 hat should show.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from magiccolor_jax.models.color_matching import unit
from magiccolor_jax.nn.plain import is_plain


class Warped(NamedTuple):
    """The references' colours, brought to the target's patches."""

    colors: Float[Array, "B G H 3"]
    """[-1, 1]."""
    valid: Bool[Array, "B G H"]
    """False outside of all instances, and where a reference has no patch that counts."""


def warp_colors(
    target: Float[Array, "B G H C"],
    owner: Int[Array, "B G H"],
    references: Float[Array, "B K g g C"],
    colors: Float[Array, "B K g g 3"],
    counts: Bool[Array, "B K g g"],
) -> Warped:
    """For each patch of the target the colour of its nearest patch in its own reference.

    Args:
        target: DINOv2 patch tokens of the ground truth.
        owner: which instance each patch belongs to, 1..K; 0 is background.
        references: DINOv2 patch tokens of each reference.
        colors: mean colour of each of their patches, [-1, 1].
        counts: which of their patches belong to the instance.
    """
    batch, rows, columns, channels = target.shape
    query = unit(target).reshape(batch, -1, channels)  # [B P C]
    keys = unit(references).reshape(*references.shape[:2], -1, channels)  # [B K S C]
    colors, counts = (x.reshape(*keys.shape[:3], *x.shape[4:]) for x in (colors, counts))
    mine = owner.reshape(batch, -1)  # [B P]

    def one_instance(found, instance):
        number, key, color, count = instance  # [], [B S C], [B S 3], [B S]
        similarity = jnp.einsum("bpc,bsc->bps", query, key)
        nearest = jnp.argmax(jnp.where(count[:, None], similarity, -jnp.inf), axis=-1)  # [B P]
        taken = jnp.take_along_axis(color, nearest[..., None], axis=1)  # [B P 3]
        is_mine = (mine == number) & count.any(axis=1, keepdims=True)
        return Warped(
            jnp.where(is_mine[..., None], taken, found.colors), found.valid | is_mine
        ), None

    start = Warped(jnp.zeros((*mine.shape, 3)), jnp.zeros(mine.shape, bool))
    numbers = jnp.arange(1, references.shape[1] + 1)
    instances = (numbers, *(jnp.moveaxis(x, 1, 0) for x in (keys, colors, counts)))
    # One instance after another: the similarities of all at once would take K times the memory.
    found, _ = lax.scan(one_instance, start, instances, unroll=is_plain())
    grid = (batch, rows, columns)
    return lax.stop_gradient(Warped(found.colors.reshape(*grid, 3), found.valid.reshape(grid)))


def color_loss(predicted: Float[Array, "B G H 3"], warped: Warped) -> Float[Array, " B"]:
    """Mean absolute difference of colours over the valid patches; 0 where there is none.

    Args:
        predicted: x0 hat, decoded, averaged over the same patches, [-1, 1].
    """
    difference = jnp.abs(predicted - warped.colors).mean(axis=-1)  # [B G H]
    total = jnp.sum(jnp.where(warped.valid, difference, 0.0), axis=(1, 2))
    return total / jnp.maximum(jnp.sum(warped.valid, axis=(1, 2)), 1)
