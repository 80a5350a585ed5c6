"""What each half of guidance sees under each recipe (small random networks, stand-in encoders)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.randomise import randomise

from magiccolor_jax.conditioning import assemble as module
from magiccolor_jax.conditioning.assemble import (
    Dropping,
    Encoders,
    assemble,
    mixes_halves,
    uses_clip,
)
from magiccolor_jax.encoders.vae import Posterior
from magiccolor_jax.models.context import ContextConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.magiccolor import MagicColor, MagicColorConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Batch, Draws, NullContexts, TokenGrid

CASES, PAGE, CANVAS, COUNT, GRID, DINO, CONTEXT = 2, (32, 48), 32, 3, 2, 6, 12
SMALL = {"channels": (8, 16), "attention": (True, False), "layers": 1, "heads": 2, "groups": 4}
"""Two levels: compiled in a second."""

pytestmark = pytest.mark.usefixtures("compile_quickly")

ALL, NOTHING = ("bank", "context", "instances"), ()


def recipe(**fields):
    return dataclasses.replace(Recipe(), **fields)


@pytest.fixture(scope="module")
def model():
    unet = {**SMALL, "context": CONTEXT}
    guider = {**unet, "embedding_channels": (4, 4, 8, 8)}
    cfg = MagicColorConfig(
        denoiser=UNetConfig(**unet),
        reference=UNetConfig(**unet, head=False),
        sketch_guider=ControlNetConfig(**guider),
        instance_guider=ControlNetConfig(**guider, conditioning_channels=DINO, adapter=True),
        context=ContextConfig(inputs=DINO, hidden=8, outputs=CONTEXT),
    )
    return randomise(abstract(MagicColor, cfg), 1)


class BlockMeans(nnx.Module):
    """Stands in for the autoencoder: a latent is the mean of its block."""

    def encode(self, pixels):
        means = nnx.avg_pool(pixels, (8, 8), strides=(8, 8))
        means = jnp.concatenate([means, means[..., :1]], axis=-1)
        return Posterior(means, jnp.full_like(means, 0.5))


class PixelMean(nnx.Module):
    """Stands in for CLIP: an embedding that is made of the picture's mean colour."""

    def __call__(self, pixels):
        return jnp.tile(pixels.mean((1, 2)), (1, CONTEXT // 3))


@pytest.fixture(scope="module")
def encoders():
    return Encoders(BlockMeans(), PixelMean())


@pytest.fixture(scope="module")
def inputs():
    """Batch, tokens, draws, nulls, noisy latents; a third instance is padding in case 0."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    owner = np.zeros((CASES, *PAGE), np.int32)
    owner[:, 4:20, 6:30] = 1
    owner[:, 10:31, 20:44] = 2
    owner[1, 2:9, 30:47] = 3
    boxes = np.array([[[4, 6, 19, 29], [10, 20, 30, 43], [2, 30, 8, 46]]] * CASES, np.int32)
    valid = np.array([[True, True, False], [True, True, True]])
    roi = np.tile(np.float32([0, 0, GRID - 1, GRID - 1]), (CASES, COUNT, 1))
    batch = Batch(
        sketch=normal(CASES, *PAGE, 3),
        canvas=normal(CASES, CANVAS, CANVAS, 3),
        clip_pixels=10 * normal(CASES, 8, 8, 3),
        reference_pixels=jnp.zeros((CASES, 0)),
        instance_map=jnp.asarray(owner),
        boxes=jnp.asarray(boxes),
        roi=jnp.asarray(roi),
        valid=jnp.asarray(valid),
    )
    tokens = TokenGrid(normal(CASES, COUNT, DINO), normal(CASES, COUNT, GRID, GRID, DINO))
    latent = (CASES, PAGE[0] // 8, PAGE[1] // 8, 4)
    order = jnp.asarray([rng.permutation(16) for _ in range(CASES)])
    draws = Draws(normal(*latent), normal(CASES, CANVAS // 8, CANVAS // 8, 4), order)
    return batch, tokens, draws, NullContexts(normal(1, 1, CONTEXT), normal(1, 1, CONTEXT))


@functools.cache
def program(recipe, guided):
    """Conditions and one evaluation as one program: noise of all rows."""

    def noise(model, encoders, batch, tokens, draws, nulls, training=None):
        conditioning = assemble(
            model, encoders, batch, tokens, draws, nulls, recipe, guided=guided, training=training
        )
        latents = jnp.concatenate([draws.noise] * (2 if guided else 1))
        timesteps = jnp.full(len(latents), 501)
        return model(latents, timesteps, conditioning)

    return nnx.jit(noise)


def halves(recipe, model, encoders, inputs):
    """(unconditional, conditional) noise."""
    return np.split(np.asarray(program(recipe, True)(model, encoders, *inputs)), 2)


def trained(recipe, model, encoders, inputs, rows):
    """Noise in training, with the given rows dropped."""
    training = Dropping(jnp.asarray(rows), jax.random.key(0))
    return np.asarray(program(recipe, False)(model, encoders, *inputs, training=training))


def changed(inputs, what):
    """The inputs with one of the conditions replaced."""
    batch, tokens, draws, nulls = inputs
    if what == "instances":
        tokens = TokenGrid(tokens.cls + 1, tokens.patches[:, :, ::-1])
    else:
        name = {"bank": "canvas", "context": "clip_pixels"}[what]
        batch = batch._replace(**{name: getattr(batch, name)[::-1]})
    return batch, tokens, draws, nulls


def differ(x, y):
    return np.abs(x - y).max() > 1e-4


CHOICES = {
    "paper": recipe(),
    "nothing dropped": recipe(uncond_drops=NOTHING),
    "release drops": recipe(uncond_drops=("bank", "context")),
    "dinov2, fixed": recipe(context="dinov2", color_matching="fixed"),
    "no bank": recipe(reference_bank=False),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_the_conditional_half_is_the_unguided_program(model, encoders, inputs, choice):
    # What the unconditional half sees cannot matter here: one program for all.
    plain = dataclasses.replace(choice, uncond_drops=ALL)
    alone = np.asarray(program(plain, False)(model, encoders, *inputs))
    uncond, cond = halves(choice, model, encoders, inputs)
    assert np.abs(cond - alone).max() < 1e-5 * np.abs(alone).max()
    assert differ(uncond, cond) or choice.uncond_drops == NOTHING


@pytest.mark.parametrize("what", ALL)
@pytest.mark.parametrize("choice", ["paper", "nothing dropped", "release drops"])
def test_the_unconditional_half_does_not_see_what_is_dropped(model, encoders, inputs, choice, what):
    before = halves(CHOICES[choice], model, encoders, inputs)
    after = halves(CHOICES[choice], model, encoders, changed(inputs, what))
    assert differ(before[1], after[1])
    assert differ(before[0], after[0]) == (what not in CHOICES[choice].uncond_drops)


def test_without_drops_the_halves_are_equal(model, encoders, inputs):
    uncond, cond = halves(CHOICES["nothing dropped"], model, encoders, inputs)
    assert np.array_equal(uncond, cond)


def test_without_a_bank_the_canvas_does_not_matter(model, encoders, inputs):
    before = halves(CHOICES["no bank"], model, encoders, inputs)
    after = halves(CHOICES["no bank"], model, encoders, changed(inputs, "bank"))
    assert np.array_equal(before, after)


def test_dinov2_context_ignores_padding(model, encoders, inputs):
    """Tokens of an invalid instance have no effect, nor has a larger bucket of K."""
    choice = CHOICES["dinov2, fixed"]
    batch, tokens, *rest = inputs
    before = halves(choice, model, encoders, inputs)
    loud = TokenGrid(tokens.cls.at[0, 2].set(9), tokens.patches.at[0, 2].set(-9))
    after = halves(choice, model, encoders, (batch, loud, *rest))
    assert np.abs(np.subtract(before, after)).max() < 1e-6
    heard = TokenGrid(tokens.cls.at[1, 2].set(9), tokens.patches)
    assert differ(before[1], halves(choice, model, encoders, (batch, heard, *rest))[1])

    def widened(x):
        return jnp.pad(x, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2))

    wide = batch._replace(**{k: widened(getattr(batch, k)) for k in ("boxes", "roi", "valid")})
    more = (wide, TokenGrid(*map(widened, tokens)), *rest)
    assert np.abs(np.subtract(before, halves(choice, model, encoders, more))).max() < 1e-5


def test_length_of_the_context(model, encoders, inputs):
    """One token of CLIP's, or every token of DINOv2's with a mask."""
    shapes = [traced(recipe(context=c), model, encoders, inputs) for c in ("clip", "dinov2")]
    lengths = [shape.caches[0].context.key.shape[1] for shape in shapes]
    assert lengths == [1, COUNT * (1 + GRID * GRID)]
    assert shapes[0].caches[0].context.mask is None
    assert shapes[1].caches[0].context.mask.shape == (2 * CASES, lengths[1])


def traced(recipe, model, encoders, inputs, guided=True):
    """The conditions as shapes; nothing is compiled."""

    def call(model, encoders, inputs):
        return assemble(model, encoders, *inputs, recipe, guided=guided)

    return nnx.eval_shape(call, model, encoders, inputs)


def test_matching_gets_what_its_mode_needs(model, encoders, inputs):
    off, fixed, release = (
        traced(recipe(color_matching=mode), model, encoders, inputs).matching
        for mode in ("off", "fixed", "release")
    )
    side = CANVAS // 8
    assert off is None
    assert fixed.order is None
    assert fixed.source.shape == (CASES, side, side, 8)  # up-block 1 is the last one here
    assert fixed.inside.shape == (CASES, PAGE[0] // 8, PAGE[1] // 8)
    assert release.inside is None
    assert release.source.shape == (2 * CASES, side, side, 8)
    assert release.order.shape == (CASES, 16)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("drops", [NOTHING, ALL, ("bank", "context")])
def test_rows_of_each_condition(model, encoders, inputs, drops, guided):
    found = traced(recipe(uncond_drops=drops), model, encoders, inputs, guided)
    both = 2 * CASES if guided else CASES
    assert found.sketch.hint.shape[0] == both
    assert found.caches[0].context.key.shape[0] == both
    assert found.caches[0].reference.key.shape[0] == (CASES if "bank" in drops else both)
    assert found.instance.hint.shape[0] == (CASES if "instances" in drops else both)
    assert found.instance.caches[0].context.key.shape[0] == found.instance.hint.shape[0]


def test_no_bank_means_no_reference_network(model, encoders, inputs):
    small = nnx.merge(*nnx.split(model))
    small.reference = None
    found = traced(recipe(reference_bank=False), small, encoders, inputs)
    assert all(cache.reference is None for cache in found.caches)
    with pytest.raises(ValueError, match="no reference UNet; switch reference_bank off"):
        traced(recipe(), small, encoders, inputs)


def test_networks_that_the_recipe_asks_for(model, encoders, inputs):
    with pytest.raises(ValueError, match="context 'clip': the model has no CLIP"):
        traced(recipe(), model, encoders._replace(clip=None), inputs)
    small = nnx.merge(*nnx.split(model))
    small.context = None
    with pytest.raises(ValueError, match="made without the token MLP"):
        traced(recipe(context="dinov2"), small, encoders, inputs)


def test_stage_one_has_no_instances(model, encoders, inputs):
    small = nnx.merge(*nnx.split(model))
    small.instance_guider = None
    assert traced(recipe(), small, encoders, inputs).instance is None


def test_the_bank_is_rounded_to_float16_or_left_alone():
    hidden = jnp.asarray([[[1.0001, 3.14159265, 1e-5]]])
    rounded = module._bank(hidden, recipe(bank_dtype="float16"))
    assert rounded.dtype == jnp.float32
    assert np.array_equal(rounded, np.asarray(hidden).astype(np.float16).astype(np.float32))
    assert module._bank(hidden, recipe()) is hidden


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_the_canvas_noise_counts_only_in_a_sample(model, encoders, inputs, mode):
    batch, tokens, draws, nulls = inputs
    choice = recipe(canvas_latent=mode)
    before = halves(choice, model, encoders, inputs)[1]
    noisy = draws._replace(canvas=draws.canvas + 1)
    after = halves(choice, model, encoders, (batch, tokens, noisy, nulls))[1]
    assert differ(before, after) == (mode == "sample")


def test_tokens_are_dropped_in_training_alone(model, encoders, inputs):
    choice = recipe(token_drop=1.0)
    without = halves(choice, model, encoders, inputs)[1]
    assert np.array_equal(without, halves(recipe(), model, encoders, inputs)[1])
    dropped = trained(choice, model, encoders, inputs, [False] * CASES)
    assert differ(without, dropped)
    batch, tokens, *rest = inputs
    everywhere = jnp.broadcast_to(tokens.cls[:, :, None, None], tokens.patches.shape)
    expected = halves(choice, model, encoders, (batch, TokenGrid(tokens.cls, everywhere), *rest))
    assert np.abs(dropped - expected[1]).max() < 1e-6


DROPS = {
    "paper": recipe(),
    "nothing dropped": recipe(uncond_drops=NOTHING),
    "release drops": recipe(uncond_drops=("bank", "context")),
    "instances alone": recipe(uncond_drops=("instances",)),
    "dinov2": recipe(context="dinov2"),
    "no bank": recipe(reference_bank=False),
    "fixed": recipe(color_matching="fixed"),
}


@pytest.mark.parametrize("choice", DROPS.values(), ids=DROPS)
def test_a_dropped_row_sees_what_the_unconditional_half_sees(model, encoders, inputs, choice):
    uncond, cond = halves(choice, model, encoders, inputs)
    every_token = dataclasses.replace(choice, token_drop=0.0)
    found = trained(every_token, model, encoders, inputs, [True, False])
    expected = np.stack([uncond[0], cond[1]])
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert differ(uncond[0], cond[0]) or choice.uncond_drops == NOTHING


def test_questions_that_others_ask():
    assert uses_clip(recipe()) and not uses_clip(recipe(context="dinov2"))
    assert mixes_halves(recipe(color_matching="release"))
    assert not mixes_halves(recipe(color_matching="fixed"))
