"""The noise schedule: how much signal is left at each training timestep, and which are visited.

Everything is NumPy float64 on the host; `samplers.py` rounds once, at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from magiccolor_jax.encoders.hf_config import same_kind

BetaSchedule = Literal["scaled_linear", "linear", "squaredcos_cap_v2"]
Prediction = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing"]

_CHOICES = {
    "beta_schedule": BetaSchedule.__args__,
    "prediction_type": Prediction.__args__,
    "timestep_spacing": Spacing.__args__,
}

_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "clip_sample": False,
}
"""What a field absent from the file means to diffusers; DDIM's values, but for `clip_sample`."""

_CLASS_DEFAULTS = {
    "DDIMScheduler": {"clip_sample": True},
    "PNDMScheduler": {"set_alpha_to_one": False},
    "DPMSolverMultistepScheduler": {"timestep_spacing": "linspace"},
}
"""Where a class of diffusers departs from `_DEFAULTS`."""

_REQUIRED = {
    "clip_sample": False,
    "trained_betas": None,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "lambda_min_clipped": -np.inf,
    "variance_type": None,
}
"""Fields that we honour at one value only."""

_WITHOUT_EFFECT = frozenset(
    {
        "_class_name",
        "_diffusers_version",
        "skip_prk_steps",  # PNDM's own rule; its file is opened as DDIM (release.md §2.6)
        "clip_sample_range",
        "sample_max_value",
        "dynamic_thresholding_ratio",
        "lower_order_final",  # a last step to sigma zero is of first order whatever this says
        "euler_at_final",
        "flow_shift",
        "time_shift_type",
    }
)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A variance-preserving schedule: noisy = sqrt(abar_t) clean + sqrt(1 - abar_t) noise."""

    num_train_timesteps: int = 1000
    """T: timesteps are 0..T-1."""
    beta_schedule: BetaSchedule = "scaled_linear"
    """`scaled_linear` is linear in sqrt(beta); `squaredcos_cap_v2` ignores the two ends below."""
    beta_start: float = 0.00085
    """Variance of the noise added at timestep 0."""
    beta_end: float = 0.012
    """Variance of the noise added at timestep T-1."""
    steps_offset: int = 0
    """Added to every timestep under `leading` spacing."""
    set_alpha_to_one: bool = True
    """DDIM's last step ends at abar = 1 (true) or at abar_0 (false)."""
    prediction_type: Prediction = "epsilon"
    """What the network outputs: the noise, or v = sqrt(abar) noise - sqrt(1 - abar) clean."""
    timestep_spacing: Spacing = "leading"
    """`leading` counts up from 0, `trailing` counts down from T."""

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"schedule: {name} must be one of {choices}, got {getattr(self, name)!r}"
                )
        if self.num_train_timesteps < 1 or self.steps_offset < 0:
            raise ValueError(
                "schedule: num_train_timesteps must be at least 1 and steps_offset at least 0, got "
                f"{self.num_train_timesteps} and {self.steps_offset}"
            )
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ValueError(
                "schedule: betas must satisfy 0 < beta_start <= beta_end < 1, got "
                f"{self.beta_start} and {self.beta_end}"
            )

    @classmethod
    def sd15(cls) -> "Schedule":
        """Stable Diffusion 1.5's schedule, opened as DDIM (release.md §2.6)."""
        return cls(steps_offset=1, set_alpha_to_one=False)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Schedule":
        """Reads the scheduler_config.json of diffusers' PNDM, DDIM or DPM-Solver++ scheduler.

        A field that the file leaves out has the value that the file's class gives it.

        Raises:
            ValueError: one report of every unknown field and every value that we cannot honour.
        """
        name = config.get("_class_name", "DDIMScheduler")
        if name not in _CLASS_DEFAULTS:
            raise ValueError(
                "scheduler config: expected _class_name to be one of "
                f"{sorted(_CLASS_DEFAULTS)}, got {name!r}"
            )
        values = _DEFAULTS | _CLASS_DEFAULTS[name] | dict(config)
        report = [
            f"  {key}: expected {_REQUIRED[key]!r}, got {values[key]!r}"
            for key in sorted(_REQUIRED.keys() & values)
            if values[key] != _REQUIRED[key]
        ]
        report += [
            f"  {key}: expected one of {choices}, got {values[key]!r}"
            for key, choices in _CHOICES.items()
            if values[key] not in choices
        ]
        report += [
            f"  {key}: expected something like {default!r}, got {values[key]!r}"
            for key, default in _DEFAULTS.items()
            if key not in _CHOICES and not same_kind(values[key], default)
        ]
        known = _DEFAULTS.keys() | _REQUIRED.keys() | _WITHOUT_EFFECT
        report += [f"  {key}: unknown field" for key in sorted(values.keys() - known)]
        if report:
            raise ValueError("scheduler config: cannot be honoured:\n" + "\n".join(report))
        return cls(**{key: values[key] for key in cls.__dataclass_fields__})

    @property
    def alphas_cumprod(self) -> Float64[np.ndarray, " T"]:
        """abar_t, the share of the signal's variance left at timestep t; falls from 1 towards 0."""
        return np.cumprod(1.0 - self._betas())

    def _betas(self) -> Float64[np.ndarray, " T"]:
        steps = self.num_train_timesteps
        if self.beta_schedule == "linear":
            return np.linspace(self.beta_start, self.beta_end, steps)
        if self.beta_schedule == "scaled_linear":
            return np.linspace(self.beta_start**0.5, self.beta_end**0.5, steps) ** 2
        # Improved DDPM (arXiv:2102.09672), equation 17; 0.999 keeps the last step finite.
        cosine = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - cosine[1:] / cosine[:-1], 0.999)
