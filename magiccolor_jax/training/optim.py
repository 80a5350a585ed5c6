"""The optimiser: gradient clipping, AdamW, Adafactor or Muon, a schedule, and who decays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import optax
import optax.contrib

from magiccolor_jax.trees import decide

MUON_RMS = 0.2
"""Root mean square of Muon's updates at a rate of 1, which is about AdamW's (arXiv:2502.16982)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How gradients become updates; defaults are the release's, with the paper's rate."""

    kind: Literal["adamw", "adafactor", "muon"] = "adamw"
    """`adafactor` keeps one row and one column of second moments instead of all of both; `muon`
    (arXiv:2502.16982) makes kernels' updates orthogonal, as large as AdamW's, and is AdamW for all
    else."""
    lr: float = 2e-5
    """Learning rate after warm-up (paper: 2e-5, release: 1e-5)."""
    warmup: int = 10
    """Steps over which the rate grows from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to `final_lr` at the last step."""
    final_lr: float = 0.0
    """Rate at the end of the cosine."""
    b1: float = 0.9
    """Decay of the first moment (AdamW)."""
    b2: float = 0.999
    """Decay of the second moment (AdamW)."""
    eps: float = 1e-8
    """Added to the root of the second moment (AdamW)."""
    weight_decay: float = 1e-2
    """Decoupled decay, times the learning rate."""
    decays: tuple[tuple[str, bool], ...] = ((r".*", True),)
    """Regex over paths -> whether the parameter decays; the first full match counts. The release
    decays all of them."""
    clip: float = 1.0
    """Largest global norm of the gradient."""
    moments: Literal["float32", "bfloat16"] = "float32"
    """Type of AdamW's first moment; the second stays f32, whatever the parameters are."""

    def __post_init__(self):
        positive = {"lr": self.lr, "clip": self.clip, "eps": self.eps}
        if bad := {name: value for name, value in positive.items() if not value > 0}:
            raise ValueError(f"OptimConfig: expected positive values, got {bad}")
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise ValueError(f"OptimConfig: b1 and b2 lie in [0, 1), got {self.b1} and {self.b2}")
        least = ("warmup", "weight_decay", "final_lr")
        if bad := {name: getattr(self, name) for name in least if getattr(self, name) < 0}:
            raise ValueError(f"OptimConfig: expected no negative values, got {bad}")


def _matrices(parameters: dict[str, Any]) -> dict[str, optax.contrib.MuonDimensionNumbers | None]:
    """Kernels are matrices from all that a value is summed over to the outputs."""
    return {
        path: optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)
        if path.endswith("/kernel") and getattr(x, "ndim", 0) > 1  # optax masks some of them
        else None
        for path, x in parameters.items()
    }


def learning_rate(cfg: OptimConfig, steps: int) -> optax.Schedule:
    """Step (from 0) -> learning rate.

    Args:
        steps: of the whole training.
    """
    if cfg.schedule == "constant":
        after: optax.Schedule = optax.constant_schedule(cfg.lr)
    else:
        left = max(steps - cfg.warmup, 1)
        after = optax.cosine_decay_schedule(cfg.lr, left, alpha=cfg.final_lr / cfg.lr)
    if not cfg.warmup:
        return after
    # The first step already moves: step i of n has (i + 1) / n of the rate.
    rising = optax.linear_schedule(cfg.lr / cfg.warmup, cfg.lr, max(cfg.warmup - 1, 1))
    return optax.join_schedules([rising, after], [cfg.warmup])


def make_optimizer(
    cfg: OptimConfig, paths: Iterable[str], steps: int
) -> optax.GradientTransformation:
    """The optimiser of the parameters at `paths`.

    Raises:
        ValueError: a path that no row of `decays` matches.
    """
    decays = decide(cfg.decays, paths, "weight decay")
    rate = learning_rate(cfg, steps)
    if cfg.kind == "adafactor":
        # weight_decay_rate is not multiplied by the learning rate there, so ours follows it.
        inner = optax.chain(
            optax.adafactor(None, multiply_by_parameter_scale=False, clipping_threshold=1.0),
            optax.add_decayed_weights(-cfg.weight_decay, mask=decays),
            optax.scale_by_schedule(rate),
        )
    elif cfg.kind == "muon":
        matrices: Any = _matrices  # optax declares trees of its own class only
        inner = optax.chain(
            optax.contrib.muon(
                1.0,
                adam_b1=cfg.b1,
                adam_b2=cfg.b2,
                mu_dtype=jnp.dtype(cfg.moments),
                consistent_rms=MUON_RMS,
                muon_weight_dimension_numbers=matrices,
            ),
            optax.add_decayed_weights(-cfg.weight_decay, mask=decays),
            optax.scale_by_schedule(rate),
        )
    else:
        inner = optax.adamw(
            rate,
            b1=cfg.b1,
            b2=cfg.b2,
            eps=cfg.eps,
            weight_decay=cfg.weight_decay,
            mask=decays,
            mu_dtype=jnp.dtype(cfg.moments),
        )
    return optax.chain(optax.clip_by_global_norm(cfg.clip), inner)
