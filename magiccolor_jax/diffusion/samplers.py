"""DDIM and DPM-Solver++(2M) as one linear multistep rule read from a table.

Both samplers, both predictions and both spacings are

    x0     = x0_from_latents x + x0_from_output output
    x_next = next_from_latents x + next_from_x0 x0 + next_from_previous x0_previous

so that one compiled `step` serves them all: only the table's numbers change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Int64

from magiccolor_jax.diffusion.schedule import Schedule

MAX_STEPS = 1000
"""Length of every table: the longest trajectory, so that the number of steps is not a shape."""


class StepTable(NamedTuple):
    """A trajectory's timesteps and coefficients; entries from `steps` on are zero."""

    steps: Int[np.ndarray | Array, ""]
    """Number of entries in use, 1..MAX_STEPS: the sampling loop's trip count."""
    timesteps: Int[np.ndarray | Array, " MAX_STEPS"]
    """What the network is told, from noise to picture."""
    x0_from_latents: Float[np.ndarray | Array, " MAX_STEPS"]
    x0_from_output: Float[np.ndarray | Array, " MAX_STEPS"]
    next_from_latents: Float[np.ndarray | Array, " MAX_STEPS"]
    next_from_x0: Float[np.ndarray | Array, " MAX_STEPS"]
    next_from_previous: Float[np.ndarray | Array, " MAX_STEPS"]


class SamplerState(NamedTuple):
    """What a step hands to the next one; float32."""

    latents: Float[Array, "B h w C"]
    """Noisy latents x at the step's timestep, in units of 0.18215 x the autoencoder's."""
    previous_x0: Float[Array, "B h w C"]
    """The clean latents that the step before predicted; anything finite before the first."""


def step(
    table: StepTable,
    index: Int[Array, ""] | int,
    state: SamplerState,
    model_output: Float[Array, "B h w C"],
) -> SamplerState:
    """Goes from timestep `table.timesteps[index]` to the next one; pure, any sampler.

    Args:
        index: 0..steps-1; may be traced.
        model_output: the network's (guided) noise or v at that timestep, whichever the table's
            schedule says.
    """

    def at(column: Float[np.ndarray | Array, " MAX_STEPS"]) -> Array:
        return jnp.asarray(column)[index]

    output = model_output.astype(jnp.float32)
    x0 = at(table.x0_from_latents) * state.latents + at(table.x0_from_output) * output
    latents = (
        at(table.next_from_latents) * state.latents
        + at(table.next_from_x0) * x0
        + at(table.next_from_previous) * state.previous_x0
    )
    return SamplerState(latents, x0)


def make_table(name: str, schedule: Schedule, steps: int) -> StepTable:
    """Table of one sampler.

    Args:
        name: a key of `SAMPLERS`.
        steps: how often the network is evaluated.

    Raises:
        ValueError: the sampler is unknown, `steps` is outside 1..MAX_STEPS, or the schedule has
            not that many timesteps to visit.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler: expected one of {sorted(SAMPLERS)}, got {name!r}")
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"sampler: expected 1..{MAX_STEPS} steps, got {steps}")
    return SAMPLERS[name](schedule, steps)


def ddim(schedule: Schedule, steps: int) -> StepTable:
    """DDIM without noise (eta 0; arXiv:2010.02502, equation 12), as diffusers' DDIMScheduler.

    Raises:
        ValueError: the schedule has not that many timesteps to visit.
    """
    total, offset = schedule.num_train_timesteps, schedule.steps_offset
    if schedule.timestep_spacing == "leading":
        timesteps = np.arange(steps)[::-1] * (total // steps) + offset
    else:
        timesteps = _trailing(total, steps)
    _check_timesteps("ddim", schedule, timesteps)
    alphas_cumprod = schedule.alphas_cumprod
    final = 1.0 if schedule.set_alpha_to_one else alphas_cumprod[0]
    # diffusers steps down by a whole stride even where rounded timesteps are further apart.
    following = timesteps - total // steps
    here = alphas_cumprod[timesteps]
    there = np.where(following >= 0, alphas_cumprod[np.maximum(following, 0)], final)
    from_latents = np.sqrt((1 - there) / (1 - here))
    return _table(
        timesteps,
        _x0_coefficients(schedule, here),
        from_latents,
        np.sqrt(there) - from_latents * np.sqrt(here),
        np.zeros(steps),
    )


def dpmpp_2m(schedule: Schedule, steps: int) -> StepTable:
    """DPM-Solver++(2M), midpoint (arXiv:2211.01095, algorithm 2), ending at sigma 0.

    As diffusers' DPMSolverMultistepScheduler: the first and the last step are of first order.

    Raises:
        ValueError: the schedule has not that many timesteps to visit.
    """
    total, offset = schedule.num_train_timesteps, schedule.steps_offset
    if schedule.timestep_spacing == "leading":
        # One point more than steps: the last is the clean picture, which is not evaluated.
        timesteps = np.arange(1, steps + 1)[::-1] * (total // (steps + 1)) + offset
    else:
        timesteps = _trailing(total, steps)
    _check_timesteps("dpmpp_2m", schedule, timesteps)
    here = schedule.alphas_cumprod[timesteps]
    there = np.append(here[1:], 1.0)
    half_log_snr = 0.5 * np.log(here / (1 - here))
    h = np.diff(half_log_snr)
    # The share of x0's own change that is extrapolated from the one before: h_i / (2 h_(i-1)).
    slope = np.zeros(steps)
    slope[1:-1] = h[1:] / (2 * h[:-1])
    from_latents = np.sqrt((1 - there) / (1 - here))
    # alpha_t (1 - exp(-h)), written without h, which is infinite at the last step.
    gain = np.sqrt(there) - from_latents * np.sqrt(here)
    return _table(
        timesteps,
        _x0_coefficients(schedule, here),
        from_latents,
        gain * (1 + slope),
        -gain * slope,
    )


SAMPLERS: dict[str, Callable[[Schedule, int], StepTable]] = {"ddim": ddim, "dpmpp_2m": dpmpp_2m}
"""Samplers by their name in configs and on the command line."""


def _trailing(total: int, steps: int) -> Int64[np.ndarray, " steps"]:
    """T-1 and down by T / steps, each rounded as diffusers rounds it.

    `arange` adds up its stride, so halves round to either side, and may run one entry over its end.
    """
    return np.round(np.arange(total, 0, -total / steps)[:steps]).astype(np.int64) - 1


def _check_timesteps(name: str, schedule: Schedule, timesteps: Int64[np.ndarray, " steps"]) -> None:
    """Raises ValueError unless the timesteps fall strictly and stay inside the schedule."""
    total = schedule.num_train_timesteps
    if timesteps[0] >= total or timesteps[-1] < 0 or (np.diff(timesteps) >= 0).any():
        raise ValueError(
            f"sampler {name}: {len(timesteps)} steps do not fit {schedule.timestep_spacing!r} "
            f"spacing over timesteps 0..{total - 1} with steps_offset {schedule.steps_offset}: "
            "take fewer steps"
        )


def _x0_coefficients(
    schedule: Schedule, alphas_cumprod: Float64[np.ndarray, " steps"]
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
    """(a, b) of x0 = a x + b output."""
    signal, noise = np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)
    if schedule.prediction_type == "epsilon":
        return 1 / signal, -noise / signal
    return signal, -noise


def _table(
    timesteps: Int64[np.ndarray, " steps"],
    x0_coefficients: tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]],
    *next_coefficients: Float64[np.ndarray, " steps"],
) -> StepTable:
    """Pads every column to MAX_STEPS and rounds it to its final dtype."""
    columns = (*x0_coefficients, *next_coefficients)
    padding = (0, MAX_STEPS - len(timesteps))
    return StepTable(
        np.asarray(len(timesteps), np.int32),
        np.pad(timesteps.astype(np.int32), padding),
        *(np.pad(column.astype(np.float32), padding) for column in columns),
    )
