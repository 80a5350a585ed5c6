"""DDIM and DPM-Solver++(2M): whole trajectories equal to diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.diffusion import samplers
from magiccolor_jax.diffusion.samplers import MAX_STEPS, SAMPLERS, SamplerState, make_table
from magiccolor_jax.diffusion.schedule import Schedule

SHAPE = (2, 3, 5, 4)
PREDICTIONS = ["epsilon", "v_prediction"]
SPACINGS = ["leading", "trailing"]
OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""diffusers' DPM-Solver hands torch tensors to np.array in a way that NumPy 2 warns about."""


def diffusers_scheduler(name, schedule):
    diffusers = pytest.importorskip("diffusers")
    fields = {
        field: getattr(schedule, field)
        for field in ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
        + ("steps_offset", "prediction_type", "timestep_spacing")
    }
    if name == "ddim":
        return diffusers.DDIMScheduler(
            **fields, set_alpha_to_one=schedule.set_alpha_to_one, clip_sample=False
        )
    return diffusers.DPMSolverMultistepScheduler(**fields)


def linear_model(seed):
    """A network stand-in: a random linear map of the flattened latents that depends on t."""
    rng = np.random.default_rng(seed)
    size = np.prod(SHAPE[1:])
    matrix = rng.normal(size=(size, size)) * 0.7 / np.sqrt(size)
    bias = rng.normal(size=size) * 0.2

    def model(latents, t):
        flat = np.asarray(latents, np.float64).reshape(SHAPE[0], -1)
        out = flat @ matrix * np.cos(0.003 * t) + bias
        return out.reshape(SHAPE).astype(np.float32)

    return model


def trajectory(name, schedule, steps, latents, model):
    """Latents after every step, [steps *SHAPE], through the jitted step."""
    table = make_table(name, schedule, steps)
    advance = jax.jit(samplers.step)
    state = SamplerState(jnp.asarray(latents), jnp.zeros(SHAPE))
    visited = []
    for index in range(steps):
        output = model(state.latents, int(table.timesteps[index]))
        state = advance(table, jnp.asarray(index), state, jnp.asarray(output))
        visited.append(np.asarray(state.latents))
    return np.stack(visited)


def diffusers_trajectory(name, schedule, steps, latents, model):
    import torch

    scheduler = diffusers_scheduler(name, schedule)
    scheduler.set_timesteps(steps)
    x, visited = torch.from_numpy(latents), []
    for t in scheduler.timesteps[:steps]:
        x = scheduler.step(torch.from_numpy(model(x.numpy(), int(t))), t, x).prev_sample
        visited.append(x.numpy())
    return np.stack(visited)


@pytest.mark.torch
@OLD_NUMPY
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 15, 20, 50])
def test_trajectory_equals_diffusers(name, prediction, spacing, set_alpha_to_one, steps):
    pytest.importorskip("torch")
    schedule = Schedule(
        steps_offset=1,
        set_alpha_to_one=set_alpha_to_one,
        prediction_type=prediction,
        timestep_spacing=spacing,
    )
    latents = np.random.default_rng(steps).normal(size=SHAPE).astype(np.float32)
    model = linear_model(seed=7)
    expected = diffusers_trajectory(name, schedule, steps, latents, model)
    ours = trajectory(name, schedule, steps, latents, model)
    for step, (a, b) in enumerate(zip(ours, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max(), err_msg=f"{step=}")


@pytest.mark.torch
@OLD_NUMPY
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("total", [1000, 250])
def test_timesteps_equal_diffusers(name, spacing, total):
    """Every step count that leaves diffusers' own timesteps falling and inside the schedule."""
    pytest.importorskip("torch")
    schedule = Schedule(num_train_timesteps=total, steps_offset=1, timestep_spacing=spacing)
    scheduler = diffusers_scheduler(name, schedule)
    for steps in range(1, total + 1):
        scheduler.set_timesteps(steps)
        # At some counts under `trailing` diffusers makes one entry too many.
        expected = scheduler.timesteps.numpy()[:steps]
        if expected[0] < total and (np.diff(expected) < 0).all():
            table = make_table(name, schedule, steps)
            np.testing.assert_array_equal(table.timesteps[:steps], expected, err_msg=f"{steps=}")
        else:
            with pytest.raises(ValueError, match="take fewer steps"):
                make_table(name, schedule, steps)


def test_sd15_leading_timesteps():
    """release.md §2.6."""
    assert make_table("ddim", Schedule.sd15(), 4).timesteps[:4].tolist() == [751, 501, 251, 1]


def test_sampler_steps_and_spacing_share_one_program():
    advance = jax.jit(samplers.step)
    state = SamplerState(jnp.ones(SHAPE), jnp.zeros(SHAPE))
    for name in SAMPLERS:
        for prediction in PREDICTIONS:
            for steps in (1, 20, 300):
                schedule = Schedule(prediction_type=prediction, steps_offset=1)
                table = make_table(name, schedule, steps)
                assert table.steps == steps
                assert all(len(column) == MAX_STEPS for column in table[1:])
                assert not any(column[steps:].any() for column in table[1:])
                advance(table, jnp.asarray(steps - 1), state, jnp.ones(SHAPE))
    assert advance._cache_size() == 1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [-1, 0, MAX_STEPS + 1])
def test_refuses_step_counts_outside_the_table(name, steps):
    with pytest.raises(ValueError, match=f"1..{MAX_STEPS} steps, got {steps}"):
        make_table(name, Schedule.sd15(), steps)


def test_refuses_unknown_sampler():
    with pytest.raises(ValueError, match="expected one of .*ddim.*got 'euler'"):
        make_table("euler", Schedule.sd15(), 20)
