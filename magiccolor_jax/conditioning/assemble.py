"""From a batch to everything the denoiser is told, once for all steps (release.md §2).

This file reads the recipe's choices of what each half of guidance sees.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from magiccolor_jax.conditioning.instances import (
    drop_tokens,
    guidance_hint,
    instance_pixels,
    place,
    valid_tokens,
)
from magiccolor_jax.encoders.clip import CLIPVision
from magiccolor_jax.encoders.vae import VAE
from magiccolor_jax.models.color_matching import Matching
from magiccolor_jax.models.controlnet import ControlNet
from magiccolor_jax.models.magiccolor import Conditioning, Guide, MagicColor
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import (
    Batch,
    Draws,
    NullContexts,
    ReferenceFeatures,
    TokenGrid,
)


class Encoders(NamedTuple):
    """Frozen networks that assembling needs (DINOv2's tokens arrive ready, they are cached)."""

    vae: VAE
    clip: CLIPVision | None = None
    """None when the context is not CLIP's."""


class Dropping(NamedTuple):
    """What a training step leaves out of its conditions."""

    rows: Bool[Array, " B"]
    """Cases that see what the unconditional half of guidance sees (recipe `uncond_drops`)."""
    token_key: Array
    """Draws the tokens that `recipe.token_drop` replaces."""


class Context(NamedTuple):
    """Cross-attention context of the rows of a batch."""

    tokens: Float[Array, "B S E"]
    mask: Bool[Array, "B S"] | None


def uses_clip(recipe: Recipe) -> bool:
    """Whether the context is CLIP's, or else the token MLP's."""
    return recipe.context == "clip"


def uses_reference(recipe: Recipe) -> bool:
    """Whether anything reads the reference UNet."""
    return recipe.reference_bank or recipe.color_matching != "off"


def mixes_halves(recipe: Recipe) -> bool:
    """Whether the conditional half depends on the unconditional one, even at guidance scale 1."""
    return recipe.color_matching == "release"


def assemble(
    model: MagicColor,
    encoders: Encoders,
    batch: Batch,
    tokens: TokenGrid,
    draws: Draws,
    nulls: NullContexts,
    recipe: Recipe,
    *,
    guided: bool,
    training: Dropping | None = None,
) -> Conditioning:
    """Computes the conditions of B cases.

    Args:
        tokens: DINOv2 features of `batch.reference_pixels`.
        guided: rows are [unconditional | conditional] (2B); else conditional alone (B).
        training: what is dropped; only without `guided`, whose halves are fixed.

    Raises:
        ValueError: the recipe asks for a network that the model does not have.
    """
    assert not (guided and training), "the halves of guidance are fixed"
    dropped = None if training is None else training.rows
    context = _context(model, encoders, batch, tokens, recipe)
    drops = recipe.uncond_drops

    def rows_of(null: Array, both: bool) -> Context:
        return _rows(context, null, both, dropped) if "context" in drops else _both(context, both)

    denoiser_context = rows_of(nulls.denoiser, guided)
    of_reference = partial(rows_of, nulls.reference)
    reference, matching = _reference(model, encoders, batch, draws, recipe, guided, of_reference)
    bank = None
    if recipe.reference_bank and reference is not None:
        keeps_all = guided and "bank" not in drops
        rows = batch.sketch.shape[0] * (2 if keeps_all else 1)
        bank = tuple(_bank(x[-rows:], recipe) for x in reference.hidden)
    instance = None
    if model.instance_guider is not None:
        seen = model.instance_guider, batch, tokens, recipe, denoiser_context
        instance = _instance_guide(*seen, guided, training)
    hint = model.sketch_guider.embed(batch.sketch)
    sees = ~dropped if dropped is not None and "bank" in drops else None
    return Conditioning(
        caches=model.denoiser.project(*denoiser_context, bank, sees),
        sketch=Guide(_twice(hint, guided), model.sketch_guider.project(*denoiser_context)),
        instance=instance,
        matching=_matched(matching, dropped),
    )


def _context(
    model: MagicColor, encoders: Encoders, batch: Batch, tokens: TokenGrid, recipe: Recipe
) -> Context:
    """The conditional rows' context (recipe `context`)."""
    if uses_clip(recipe):
        if encoders.clip is None:
            raise ValueError("recipe context 'clip': the model has no CLIP vision network")
        return Context(encoders.clip(batch.clip_pixels)[:, None, :], None)
    if model.context is None:
        raise ValueError(
            "recipe context 'dinov2': the model was made without the token MLP "
            "(MagicColorConfig.context); use context 'clip'"
        )
    sequence, mask = valid_tokens(*tokens, batch.valid)
    return Context(model.context(sequence), mask)


def _rows(context: Context, null: Array, guided: bool, dropped: Array | None) -> Context:
    """Context of all rows; the unconditional half, or the dropped rows, get the null token."""
    if not guided and dropped is None:
        return context
    batch, length, width = context.tokens.shape
    absent = jnp.broadcast_to(null, (batch, 1, width)).astype(context.tokens.dtype)
    absent = jnp.pad(absent, ((0, 0), (0, length - 1), (0, 0)))
    only_first = jnp.broadcast_to(jnp.arange(length) == 0, (batch, length))
    without = Context(absent, None if context.mask is None else only_first)
    if guided:
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), without, context)
    assert dropped is not None
    return jax.tree.map(
        lambda x, y: jnp.where(dropped.reshape(batch, *[1] * (x.ndim - 1)), x, y), without, context
    )


def _both(context: Context, guided: bool) -> Context:
    """The same context for both halves of guidance."""
    return jax.tree.map(lambda x: _twice(x, guided), context)


def _twice(x: Array, guided: bool) -> Array:
    """The same rows for both halves of guidance."""
    return jnp.concatenate([x, x]) if guided else x


def _reference(
    model: MagicColor,
    encoders: Encoders,
    batch: Batch,
    draws: Draws,
    recipe: Recipe,
    guided: bool,
    rows_of: Callable[[bool], Context],
) -> tuple[ReferenceFeatures | None, Matching | None]:
    """The reference UNet's features, of both halves only where both are read.

    Args:
        rows_of: the reference UNet's context, of both halves or of the conditional one.
    """
    if not uses_reference(recipe):
        return None, None
    mode = recipe.color_matching
    if model.reference is None:
        raise ValueError("recipe: the model has no reference UNet; switch reference_bank off")
    posterior = encoders.vae.encode(batch.canvas)
    latents = posterior.mean
    if recipe.canvas_latent == "sample":
        latents = posterior.sample(draws.canvas)
    both = guided and (mode == "release" or "bank" not in recipe.uncond_drops)
    features = model.reference_features(_twice(latents, both), *rows_of(both))
    if mode == "off":
        return features, None
    if mode == "release":
        return features, Matching(features.match, order=draws.order)
    cases, side = batch.sketch.shape[0], features.match.shape[1]
    inside = instance_pixels(batch.instance_map, batch.canvas.shape[1] // side)
    return features, Matching(features.match[-cases:], inside=inside)


def _matched(matching: Matching | None, dropped: Array | None) -> Matching | None:
    """As in guidance, where `fixed` matching serves the conditional half alone."""
    if matching is None or matching.inside is None or dropped is None:
        return matching
    return matching._replace(inside=matching.inside & ~dropped[:, None, None])


def _bank(hidden: Array, recipe: Recipe) -> Array:
    """The bank as it is handed over: the release rounds it to float16 (release.md §2.2)."""
    if recipe.bank_dtype == "float16":
        return hidden.astype(jnp.float16).astype(hidden.dtype)
    return hidden


def _instance_guide(
    guider: ControlNet,
    batch: Batch,
    tokens: TokenGrid,
    recipe: Recipe,
    context: Context,
    guided: bool,
    training: Dropping | None,
) -> Guide:
    """The instance guider's hint and context, of the rows that see the instances."""
    patches, keep = tokens.patches, None
    if training is not None and recipe.token_drop:
        patches = drop_tokens(training.token_key, patches, tokens.cls, recipe.token_drop)
    if training is not None and "instances" in recipe.uncond_drops:
        keep = ~training.rows
    where = place(batch.instance_map, batch.boxes, batch.roi, batch.valid, patches.shape[2], recipe)
    hint = guidance_hint(guider, patches, where)
    if guided and "instances" in recipe.uncond_drops:
        return Guide(hint, guider.project(*_last_rows(context, batch.sketch.shape[0])))
    return Guide(_twice(hint, guided), guider.project(*context), keep)


def _last_rows(context: Context, rows: int) -> Context:
    """The conditional rows alone."""
    mask = context.mask if context.mask is None else context.mask[-rows:]
    return Context(context.tokens[-rows:], mask)
