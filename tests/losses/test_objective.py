"""The objective with stand-ins whose answers are known: a perfect denoiser, a lossless encoder."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.randomise import randomise

from magiccolor_jax.conditioning.assemble import Encoders
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.dinov2 import DINOv2, DINOv2Features
from magiccolor_jax.encoders.vae import Posterior
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.losses import objective as module
from magiccolor_jax.losses.denoising import clean_weight
from magiccolor_jax.losses.objective import Frozen, Keys, LossConfig, Objective, random_crop
from magiccolor_jax.models.magiccolor import MagicColor
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Batch, NullContexts, TrainingBatch

pytestmark = pytest.mark.usefixtures("compile_quickly")

CASES, PAGE, GRID = 3, (64, 96), 4
KEY = jax.random.key(5)


class BlockVAE:
    """Lossless for pictures of 8 x 8 blocks of one colour."""

    cfg = SimpleNamespace(latent_channels=4)

    def encode(self, pixels):
        colors = pixels[:, 4::8, 4::8]
        mean = jnp.pad(colors, [(0, 0)] * 3 + [(0, 1)])
        return Posterior(mean, jnp.zeros_like(mean))

    def decode(self, latents):
        return latents[..., :3].repeat(8, 1).repeat(8, 2)


class ColorDINO(DINOv2):
    """A patch's feature is its mean colour."""

    def __init__(self):
        self.cfg = SimpleNamespace(patch_size=14)

    def __call__(self, pixels):
        batch, height, width, _ = pixels.shape
        patches = pixels.reshape(batch, height // 14, 14, width // 14, 14, 3).mean((2, 4))
        features = jnp.concatenate([patches, jnp.ones_like(patches[..., :1])], axis=-1)
        return DINOv2Features(features.mean((1, 2)), features)


class Denoiser(MagicColor):
    """Knows the noise that the objective draws, and errs by a constant."""

    def __init__(self, error, key):
        self.error, self.key, self.dinov2 = error, key, None

    def __call__(self, noisy, timesteps, conditioning):
        return jax.random.normal(Keys.split(self.key).noise, noisy.shape) + self.error


def pictures(seed, count, rows, columns, cell):
    """[-1, 1], cells of one colour each."""
    colors = np.random.default_rng(seed).uniform(-1, 1, (count, rows, columns, 3))
    return jnp.asarray(colors.repeat(cell, 1).repeat(cell, 2), jnp.float32)


def normalised(pixels):
    unit = (pixels + 1) / 2
    return (unit - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def batch():
    """Two instances, left and right half of the page; each reference holds its half's cells."""
    target = pictures(0, CASES, PAGE[0] // 16, PAGE[1] // 16, 16)
    cells = target[:, ::16, ::16]  # [B 4 6 3]
    halves = [jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0))) for x in jnp.split(cells, 2, axis=2)]
    references = jnp.stack(halves, axis=1)  # [B 2 4 4 3], the last column is padding
    counts = np.ones((CASES, 2, GRID, GRID), bool)
    counts[..., -1] = False
    owner = np.ones((CASES, *PAGE), np.int32)
    owner[:, :, PAGE[1] // 2 :] = 2
    case = Batch(
        sketch=target,
        canvas=jnp.zeros((CASES, 32, 32, 3)),
        clip_pixels=jnp.zeros((CASES, 8, 8, 3)),
        reference_pixels=normalised(references.repeat(14, 2).repeat(14, 3)),
        instance_map=jnp.asarray(owner),
        boxes=jnp.zeros((CASES, 2, 4), jnp.int32),
        roi=jnp.zeros((CASES, 2, 4)),
        valid=jnp.ones((CASES, 2), bool),
    )
    return TrainingBatch(case, target, jnp.asarray(counts), references)


@pytest.fixture(scope="module")
def frozen():
    null = jnp.zeros((1, 1, 4))
    vgg = randomise(abstract(VGG19, VGG19Config.nano()), seed=0)
    return Frozen(Encoders(BlockVAE()), ColorDINO(), NullContexts(null, null), vgg)


ALWAYS = LossConfig(edge=False, picture_share=1.0, picture_below=1.0, picture_crop=64)


@pytest.fixture
def evaluate(monkeypatch, frozen):
    """Terms of a batch under a config, with a denoiser that errs by a constant."""
    monkeypatch.setattr(module, "assemble", lambda *_, **__: None)

    def run(cfg, batch, error=0.0, progress=0.0, schedule=None, key=KEY):
        loss = Objective(cfg, Recipe(), schedule or Schedule.sd15())
        total, terms = loss(
            Denoiser(error, key), frozen, batch, Keys.split(key), jnp.asarray(progress)
        )
        assert float(total) == pytest.approx(float(terms["loss"]))
        return {name: float(value) for name, value in terms.items()}

    return run


def test_a_perfect_denoiser_loses_nothing(evaluate, batch):
    terms = evaluate(ALWAYS, batch)
    assert terms["loss/denoise"] == 0
    # x0 hat, its picture and the colours of each half's own reference are all exact.
    assert terms["loss/perceptual"] < 1e-5 and terms["loss/color"] < 1e-3


def test_wrong_references_lose_in_colour_alone(evaluate, batch):
    swapped = batch.case.reference_pixels[:, ::-1]
    wrong = batch._replace(case=batch.case._replace(reference_pixels=swapped))
    terms = evaluate(ALWAYS, wrong)
    assert terms["loss/color"] > 0.1 and terms["loss/perceptual"] < 1e-5


def test_the_total_is_the_weighted_sum(evaluate, batch):
    cfg = dataclasses.replace(ALWAYS, perceptual=0.3, color=0.7)
    terms = evaluate(cfg, batch, error=0.2)
    assert terms["loss/denoise"] == pytest.approx(0.04, rel=1e-4)
    assert terms["loss"] == pytest.approx(
        terms["loss/denoise"] + 0.3 * terms["loss/perceptual"] + 0.7 * terms["loss/color"]
    )


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"perceptual": 0.0, "color": 0.0}, set()),
        ({"perceptual": 0.0}, {"loss/color"}),
        ({"color": 0.0}, {"loss/perceptual"}),
    ],
)
def test_a_weight_of_zero_removes_the_term(evaluate, batch, weights, names):
    terms = evaluate(dataclasses.replace(ALWAYS, **weights), batch)
    assert terms.keys() == {"loss", "loss/denoise"} | names


def test_edges_weigh_more_towards_the_end(evaluate, batch):
    cfg = LossConfig(edge=True, perceptual=0.0, color=0.0)
    start, end = (evaluate(cfg, batch, 0.5, progress)["loss"] for progress in (0.0, 1.0))
    assert start == pytest.approx(0.25, rel=1e-5)
    assert 1.1 * start < end < 2 * start


def test_min_snr_cuts_the_weight_of_clean_samples(evaluate, batch):
    cfg = LossConfig(edge=False, min_snr_gamma=5.0, perceptual=0.0, color=0.0)
    timesteps = jax.random.randint(Keys.split(KEY).timesteps, (CASES,), 0, 1000)
    abar = Schedule.sd15().alphas_cumprod[np.asarray(timesteps)]
    snr = abar / (1 - abar)
    expected = 0.25 * np.mean(np.minimum(snr, 5) / snr)
    assert evaluate(cfg, batch, 0.5)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_timesteps_are_drawn_as_the_clean_latents_count(prediction):
    schedule = dataclasses.replace(Schedule.sd15(), prediction_type=prediction)
    cfg = LossConfig(timesteps="clean", perceptual=0.0, color=0.0)
    draw = jax.jit(Objective(cfg, Recipe.paper(), schedule)._timesteps, static_argnums=1)
    drawn = np.concatenate([draw(jax.random.key(seed), 500) for seed in range(40)])
    weights = clean_weight(schedule.alphas_cumprod, prediction)
    expected = np.cumsum(weights / weights.sum())
    found = np.cumsum(np.bincount(drawn, minlength=1000) / drawn.size)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    once = np.sort(draw(jax.random.key(1), 4))
    quarters = np.searchsorted(expected, [0, 0.25, 0.5, 0.75, 1])
    assert (quarters[:-1] <= once).all() and (once <= quarters[1:]).all(), "one in each quarter"


def test_noisy_samples_do_not_count_in_pictures(evaluate, batch):
    timesteps = jax.random.randint(Keys.split(KEY).timesteps, (CASES,), 0, 1000)
    share = float(jnp.sort(timesteps)[1]) / 1000  # one of three is below
    wrong = {"error": 0.3}
    every = evaluate(ALWAYS, batch, **wrong)
    below = evaluate(dataclasses.replace(ALWAYS, picture_below=share), batch, **wrong)
    assert 0 < below["loss/color"] < every["loss/color"]
    none = evaluate(dataclasses.replace(ALWAYS, picture_below=1e-6), batch, **wrong)
    assert none["loss/color"] == 0 == none["loss/perceptual"]
    assert none["loss/denoise"] == every["loss/denoise"]


def test_pictures_are_looked_at_in_a_share_of_the_steps(evaluate, batch):
    cfg = dataclasses.replace(ALWAYS, picture_share=0.5, perceptual=0.0)
    whole = dataclasses.replace(cfg, picture_share=1.0)
    swapped = batch._replace(
        case=batch.case._replace(reference_pixels=batch.case.reference_pixels[:, ::-1])
    )
    seen = []
    for seed in range(8):
        key = jax.random.key(seed)
        found, expected = (evaluate(c, swapped, key=key)["loss/color"] for c in (cfg, whole))
        assert found == 0 or found == pytest.approx(2 * expected, rel=1e-4)
        seen.append(found > 0)
    assert any(seen) and not all(seen)


def test_velocity_is_another_target(evaluate, batch):
    """A denoiser that says the noise is wrong where the velocity is asked for."""
    cfg = LossConfig(edge=False, perceptual=0.0, color=0.0)
    schedule = Schedule(prediction_type="v_prediction")
    assert evaluate(cfg, batch, schedule=schedule)["loss"] > 0.1


def test_several_draws_of_a_sample_are_as_many_samples(evaluate, batch):
    whole = evaluate(dataclasses.replace(ALWAYS, draws=3), batch, error=0.2)
    assert whole["loss/denoise"] == pytest.approx(0.04, rel=1e-4)
    assert evaluate(dataclasses.replace(ALWAYS, draws=3), batch)["loss/perceptual"] < 1e-5
    edges = LossConfig(edge=True, perceptual=0.0, color=0.0)
    once, often = (
        evaluate(dataclasses.replace(edges, draws=n), batch, 0.5, 1.0)["loss"] for n in (1, 2)
    )
    assert often == pytest.approx(once, rel=1e-5) and once > 0.25


def test_crops_of_every_resolution_show_the_same_place():
    crop = random_crop(jax.random.key(1), (96, 160), 64, 5)
    rows, columns = np.mgrid[:96, :160]
    place = jnp.asarray(np.stack([rows, columns], -1)[None].repeat(5, 0))
    fine, coarse = crop.of(place, 1), crop.of(place[:, ::16, ::16], 16)
    assert fine.shape == (5, 64, 64, 2) and coarse.shape == (5, 4, 4, 2)
    assert np.array_equal(fine[:, ::16, ::16], coarse)
    assert len({tuple(corner) for corner in np.asarray(coarse[:, 0, 0])}) > 1
    whole = random_crop(jax.random.key(1), (48, 32), 64, 2)
    assert whole.size == (48, 32) and not whole.top.any() and not whole.left.any()


def test_matching_of_the_release_cannot_be_trained():
    with pytest.raises(ValueError, match="color_matching must be 'off' or 'fixed'"):
        Objective(LossConfig(), Recipe.release(), Schedule.sd15())


@pytest.mark.parametrize(
    "wrong",
    [
        {"color": -1.0},
        {"drop": 1.5},
        {"picture_share": 0.0},
        {"picture_crop": 40},
        {"draws": 0},
        {"min_snr_gamma": 5.0, "timesteps": "clean"},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=f"LossConfig: {next(iter(wrong))}"):
        LossConfig(**wrong)
