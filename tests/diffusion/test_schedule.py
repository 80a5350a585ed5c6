"""Schedule: the betas of diffusers, and its config files read strictly."""

import numpy as np
import pytest

from magiccolor_jax.diffusion.schedule import Schedule

SD15_FILE = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""scheduler/scheduler_config.json of stable-diffusion-v1-5."""


def test_sd15_file_is_sd15():
    assert Schedule.from_hf(SD15_FILE) == Schedule.sd15()


@pytest.mark.torch
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("total", [1000, 77])
def test_alphas_cumprod_equal_diffusers(beta_schedule, total):
    diffusers = pytest.importorskip("diffusers")
    fields = {
        "beta_schedule": beta_schedule,
        "beta_start": 0.001,
        "beta_end": 0.014,
        "num_train_timesteps": total,
    }
    expected = diffusers.DDIMScheduler(**fields).alphas_cumprod.double().numpy()
    alphas_cumprod = Schedule(**fields).alphas_cumprod
    assert alphas_cumprod.dtype == np.float64
    # diffusers computes in float32; at squaredcos' end only 1e-9 of the signal is left.
    np.testing.assert_allclose(alphas_cumprod, expected, rtol=1e-5, atol=1e-7)


def test_alphas_cumprod_have_the_digits_of_float64():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    np.testing.assert_allclose(Schedule.sd15().alphas_cumprod, np.cumprod(1 - betas), rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_reads_what_diffusers_writes(name):
    diffusers = pytest.importorskip("diffusers")
    fields = {
        "beta_schedule": "linear",
        "beta_start": 0.002,
        "beta_end": 0.013,
        "num_train_timesteps": 900,
        "steps_offset": 3,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    extra = {"clip_sample": False} if name == "DDIMScheduler" else {}
    written = dict(getattr(diffusers, name)(**fields, **extra).config)
    written.pop("_use_default_values", None)
    written["_class_name"] = name
    expected = Schedule(**fields, set_alpha_to_one=name != "PNDMScheduler")
    assert Schedule.from_hf(written) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "_class_name"),
        ({"trained_betas": [0.1]}, "trained_betas: expected None"),
        ({"clip_sample": True}, "clip_sample: expected False, got True"),
        ({"thresholding": True}, "thresholding"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing: expected one of"),
        ({"prediction_type": "sample"}, "prediction_type: expected one of"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule: expected one of"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"solver_order": 3}, "solver_order: expected 2, got 3"),
        ({"sigma_data": 1.0}, "sigma_data: unknown field"),
    ],
)
def test_refuses_what_it_cannot_honour(change, message):
    with pytest.raises(ValueError, match=message):
        Schedule.from_hf(SD15_FILE | change)


def test_reports_everything_at_once():
    with pytest.raises(ValueError, match="(?s)clip_sample.*thresholding.*sigma_data"):
        Schedule.from_hf(SD15_FILE | {"clip_sample": True, "thresholding": True, "sigma_data": 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [("DDIMScheduler", "clip_sample"), ("DPMSolverMultistepScheduler", "linspace")],
)
def test_absent_fields_mean_what_their_class_says(name, message):
    with pytest.raises(ValueError, match=message):
        Schedule.from_hf({"_class_name": name})


@pytest.mark.parametrize(
    "fields",
    [
        {"num_train_timesteps": 0},
        {"steps_offset": -1},
        {"beta_start": 0.02, "beta_end": 0.01},
    ],
)
def test_refuses_nonsense(fields):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(**fields)
