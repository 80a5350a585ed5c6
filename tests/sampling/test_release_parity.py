"""The whole guided sample against the PyTorch composition written from release.md §2-5."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import DPMSolverMultistepScheduler  # noqa: E402
from flax import nnx  # noqa: E402
from oracles import nano, pixels, release  # noqa: E402
from oracles.loaded import nano_networks  # noqa: E402
from oracles.parity import relative_error  # noqa: E402
from PIL import Image  # noqa: E402

from magiccolor_jax.data.batches import make_batch  # noqa: E402
from magiccolor_jax.data.cases import read_case  # noqa: E402
from magiccolor_jax.diffusion.samplers import SamplerState, make_table, step  # noqa: E402
from magiccolor_jax.diffusion.schedule import Schedule  # noqa: E402
from magiccolor_jax.models import unet  # noqa: E402
from magiccolor_jax.models.color_matching import match_release  # noqa: E402
from magiccolor_jax.recipe import Recipe  # noqa: E402
from magiccolor_jax.sampling.pretrained import round_to_float16  # noqa: E402
from magiccolor_jax.sampling.sampler import Sampler  # noqa: E402
from magiccolor_jax.types import Batch, Draws, Sizes, TokenGrid  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compile_quickly")]

EXAMPLES = Path(__file__).parents[2] / "examples"
SQUARE, WIDE = (128, 128), (128, 192)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def theirs() -> release.ReleaseModels:
    return nano.nano_release_models(seed=3)


@pytest.fixture(scope="module")
def make_sampler(theirs):
    """Our sampler with their weights, one per mode of matching."""
    networks, nulls = nano_networks(theirs)
    round_to_float16(networks.dinov2)

    @functools.cache
    def make(matching: str) -> Sampler:
        recipe = dataclasses.replace(Recipe.release(), color_matching=matching)
        return Sampler(networks, nulls, recipe)

    make.model = networks.model
    return make


def nhwc(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.movedim(1, -1).numpy())


def as_batch(inputs: release.ReleaseInputs) -> Batch:
    """The oracle's inputs as ours; the boxes' ends are included here and dropped by the recipe."""
    id_map = inputs.id_map.numpy().astype(np.int32)
    count, side = len(inputs.reference_pixels), inputs.reference_pixels.shape[-1]
    corners = [np.nonzero(id_map == number) for number in range(1, count + 1)]
    boxes = [[rows.min(), cols.min(), rows.max(), cols.max()] for rows, cols in corners]
    end = side // 14 - 1
    return Batch(
        sketch=nhwc(inputs.sketch),
        canvas=nhwc(inputs.canvas),
        clip_pixels=nhwc(inputs.clip_pixels),
        reference_pixels=nhwc(inputs.reference_pixels)[None],
        instance_map=id_map[None],
        boxes=np.array(boxes, np.int32)[None],
        roi=np.tile(np.float32([0, 0, end, end]), (1, count, 1)),
        valid=np.ones((1, count), bool),
    )


def as_draws(noise: release.ReleaseNoise) -> Draws:
    order = noise.order.numpy().astype(np.int32)[None]
    return Draws(jnp.asarray(nhwc(noise.latents)), jnp.asarray(nhwc(noise.canvas)), order)


def conditions(sampler: Sampler, inputs, noise, *, guided: bool):
    batch, draws = as_batch(inputs), as_draws(noise)
    cls, patches = sampler.encode_references(batch.reference_pixels[0])
    return sampler.condition(batch, TokenGrid(cls[None], patches[None]), draws, guided=guided)


def sampled(sampler: Sampler, inputs, noise, *, steps: int, scale: float):
    """Latents and pixels after the whole loop."""
    guided = sampler.needs_guidance(scale)
    table = make_table("ddim", Schedule.sd15(), steps)
    prepared = conditions(sampler, inputs, noise, guided=guided)
    latents = sampler.denoise(prepared, as_draws(noise).noise, table, scale)
    return latents, sampler.decode(latents)


NIGHTLY = [pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.parametrize(
    ("page", "steps", "scale"),
    [
        (SQUARE, 4, 3.5),
        pytest.param(WIDE, 20, 3.5, marks=pytest.mark.slow),
        pytest.param(SQUARE, 20, 3.5, marks=NIGHTLY),
        pytest.param(WIDE, 4, 0.0, marks=NIGHTLY),
        pytest.param(WIDE, 20, 1.0, marks=NIGHTLY),
    ],
)
def test_whole_sample_without_matching(theirs, make_sampler, page, steps, scale):
    inputs, noise = nano.nano_release_case(5, page)
    latents, pixels = sampled(make_sampler("off"), inputs, noise, steps=steps, scale=scale)
    expected = release.sample(
        theirs, inputs, noise, steps=steps, scale=scale, matching="off", hoisted=True
    )
    assert expected.pixels.std() > 0.1
    assert relative_error(latents, nhwc(expected.latents)) < TOLERANCE
    assert relative_error(pixels, nhwc(expected.pixels)) < TOLERANCE


@pytest.mark.parametrize("scale", [pytest.param(0.0, marks=NIGHTLY), 1.0, 3.5])
def test_whole_sample_with_matching(theirs, make_sampler, evaluate, scale):
    """Their nearest positions are fed in: margins between neighbours go down to 1e-7."""
    inputs, noise = nano.nano_release_case(6)
    expected = release.sample(theirs, inputs, noise, steps=4, scale=scale, hoisted=True)
    sampler = make_sampler("release")
    assert sampler.needs_guidance(scale)
    prepared = conditions(sampler, inputs, noise, guided=True)
    table = make_table("ddim", Schedule.sd15(), 4)
    start = as_draws(noise).noise
    state, equal = SamplerState(start, jnp.zeros_like(start)), []
    for index, nearest in enumerate(expected.nearest):
        fed = jnp.asarray(nearest.numpy().astype(np.int32))[None]
        conditioning = prepared._replace(matching=prepared.matching._replace(nearest=fed))
        rows = jnp.concatenate([state.latents] * 2)
        output, found = evaluate(rows, jnp.full(2, table.timesteps[index]), conditioning)
        equal.append(float((found == fed).mean()))
        uncond, cond = jnp.split(output, 2)
        state = step(table, index, state, uncond + scale * (cond - uncond))
    assert min(equal) > 0.95, equal
    assert relative_error(state.latents, nhwc(expected.latents)) < TOLERANCE
    assert relative_error(sampler.decode(state.latents), nhwc(expected.pixels)) < TOLERANCE


@pytest.fixture(scope="module")
def evaluate(make_sampler):
    """One evaluation under given matches, and the matches that we would have found."""

    def spied(target, matching):
        new, _ = match_release(target, matching)
        _, found = match_release(target, matching._replace(nearest=None))
        spied.found = found
        return new

    @nnx.jit
    def call(model, rows, timesteps, conditioning):
        output = model(rows, timesteps, conditioning)
        return output, spied.found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "match_colors", spied)
        yield functools.partial(call, make_sampler.model)


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_our_own_loop_with_matching(theirs, make_sampler, scale):
    """The compiled loop too, as long as no match at this seed is a tie."""
    inputs, noise = nano.nano_release_case(6)
    _, pixels = sampled(make_sampler("release"), inputs, noise, steps=4, scale=scale)
    expected = release.sample(theirs, inputs, noise, steps=4, scale=scale, hoisted=True)
    assert relative_error(pixels, nhwc(expected.pixels)) < 1e-3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_dpm_solver(theirs, make_sampler):
    """DPM-Solver++(2M) against diffusers' scheduler, driven by their guided noise."""
    (inputs, noise), steps, scale = nano.nano_release_case(5, WIDE), 6, 3.5
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    encoded = release.encode(theirs, inputs, noise.canvas)
    denoise = release.GuidedDenoiser(theirs, encoded, None, hoisted=True)
    latents = noise.latents
    for t in scheduler.timesteps:
        uncond, cond = denoise(latents, t).eps.chunk(2)
        latents = scheduler.step(uncond + scale * (cond - uncond), t, latents).prev_sample
    sampler = make_sampler("off")
    prepared = conditions(sampler, inputs, noise, guided=True)
    table = make_table("dpmpp_2m", Schedule.sd15(), steps)
    ours = sampler.denoise(prepared, as_draws(noise).noise, table, scale)
    assert relative_error(ours, nhwc(latents)) < TOLERANCE


@pytest.mark.parametrize("seed", [0, 123])
def test_pictures_of_a_release_folder(seed):
    """A folder through our reader equals the release's own path, the random mirror included."""
    folder = EXAMPLES / "concert_36_release"
    case, recipe = read_case(folder), Recipe.release()
    ours = make_batch(case, recipe, Sizes(), bucket=2, seed=seed).batch
    mirror = bool(np.random.default_rng(seed).random() < recipe.mirror_canvas)

    def picture(path, mode):
        return np.asarray(Image.open(path).convert(mode))

    expected = pixels.release_inputs(
        picture(folder / "sketch.png", "RGB"),
        [picture(folder / f"{number}.png", "RGB") for number in (1, 2)],
        [picture(folder / f"masks/mask_{number}.png", "L") for number in (1, 2)],
        mirror=mirror,
    )
    theirs = as_batch(expected)
    for name in ("sketch", "canvas", "clip_pixels", "reference_pixels"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), atol=1e-6, err_msg=name
        )
    for name in ("instance_map", "boxes", "roi", "valid"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
