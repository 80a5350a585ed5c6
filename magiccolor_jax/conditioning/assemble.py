"""From a batch to everything the denoiser is told, once for all steps (release.md §2).

This file reads the recipe's choices of what each half of guidance sees.
"""

from typing import NamedTuple

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
    drop_key: Array | None = None,
) -> Conditioning:
    """Computes the conditions of B cases.

    Args:
        tokens: DINOv2 features of `batch.reference_pixels`.
        guided: rows are [unconditional | conditional] (2B); else conditional alone (B).
        drop_key: training only: which tokens `recipe.token_drop` replaces.

    Raises:
        ValueError: the recipe asks for a network that the model does not have.
    """
    patches = tokens.patches
    if drop_key is not None and recipe.token_drop:
        patches = drop_tokens(drop_key, patches, tokens.cls, recipe.token_drop)
    context = _context(model, encoders, batch, tokens, recipe)
    drops = recipe.uncond_drops
    denoiser_context = _rows(context, nulls.denoiser, guided, "context" in drops)
    reference, matching = _reference(model, encoders, batch, context, draws, nulls, recipe, guided)
    bank = None
    if recipe.reference_bank and reference is not None:
        keeps_all = guided and "bank" not in drops
        rows = batch.sketch.shape[0] * (2 if keeps_all else 1)
        bank = tuple(_bank(x[-rows:], recipe) for x in reference.hidden)
    instance = None
    if model.instance_guider is not None:
        guider = model.instance_guider
        instance = _instance_guide(guider, batch, patches, recipe, denoiser_context, guided)
    hint = model.sketch_guider.embed(batch.sketch)
    return Conditioning(
        caches=model.denoiser.project(*denoiser_context, bank),
        sketch=Guide(_twice(hint, guided), model.sketch_guider.project(*denoiser_context)),
        instance=instance,
        matching=matching,
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


def _rows(context: Context, null: Array, guided: bool, dropped: bool) -> Context:
    """Context of all rows; the unconditional half gets the null token where it is dropped."""
    if not guided:
        return context
    batch, length, width = context.tokens.shape
    mask = context.mask
    if not dropped:
        return Context(_twice(context.tokens, True), mask if mask is None else _twice(mask, True))
    absent = jnp.broadcast_to(null, (batch, 1, width)).astype(context.tokens.dtype)
    absent = jnp.pad(absent, ((0, 0), (0, length - 1), (0, 0)))
    if mask is not None:
        only_first = jnp.broadcast_to(jnp.arange(length) == 0, mask.shape)
        mask = jnp.concatenate([only_first, mask])
    return Context(jnp.concatenate([absent, context.tokens]), mask)


def _twice(x: Array, guided: bool) -> Array:
    """The same rows for both halves of guidance."""
    return jnp.concatenate([x, x]) if guided else x


def _reference(
    model: MagicColor,
    encoders: Encoders,
    batch: Batch,
    context: Context,
    draws: Draws,
    nulls: NullContexts,
    recipe: Recipe,
    guided: bool,
) -> tuple[ReferenceFeatures | None, Matching | None]:
    """The reference UNet's features, of both halves only where both are read."""
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
    rows = _rows(context, nulls.reference, both, "context" in recipe.uncond_drops)
    features = model.reference_features(_twice(latents, both), *rows)
    if mode == "off":
        return features, None
    if mode == "release":
        return features, Matching(features.match, order=draws.order)
    cases, side = batch.sketch.shape[0], features.match.shape[1]
    inside = instance_pixels(batch.instance_map, batch.canvas.shape[1] // side)
    return features, Matching(features.match[-cases:], inside=inside)


def _bank(hidden: Array, recipe: Recipe) -> Array:
    """The bank as it is handed over: the release rounds it to float16 (release.md §2.2)."""
    if recipe.bank_dtype == "float16":
        return hidden.astype(jnp.float16).astype(hidden.dtype)
    return hidden


def _instance_guide(
    guider: ControlNet,
    batch: Batch,
    patches: Float[Array, "B K G G C"],
    recipe: Recipe,
    context: Context,
    guided: bool,
) -> Guide:
    """The instance guider's hint and context, of the rows that see the instances."""
    where = place(batch.instance_map, batch.boxes, batch.roi, batch.valid, patches.shape[2], recipe)
    hint = guidance_hint(guider, patches, where)
    if guided and "instances" in recipe.uncond_drops:
        return Guide(hint, guider.project(*_last_rows(context, batch.sketch.shape[0])))
    return Guide(_twice(hint, guided), guider.project(*context))


def _last_rows(context: Context, rows: int) -> Context:
    """The conditional rows alone."""
    mask = context.mask if context.mask is None else context.mask[-rows:]
    return Context(context.tokens[-rows:], mask)
