"""Time of a training step for each choice of losses, side by side in one run, beside its FLOPs.

    python scripts/bench_losses.py                      # a quarter of the released widths, 256 px
    python scripts/bench_losses.py --size nano --rounds 3

Every step looks at pictures (`picture_share` 1). Weights and batch are random: the work does not
depend on them. Choices take turns, and ratios are medians of each round's ratios.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from abstract_training import SETTINGS, Training, networks, stage_of, training
from report import Row, show, write_json

from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.cost import step_cost
from magiccolor_jax.training.step import train_step


@dataclass(frozen=True, kw_only=True)
class Args:
    """Timings of steps."""

    size: Literal["mid", "nano"] = "mid"
    """`mid`: a quarter of the released widths, about half of the depth, 256 px; `nano`: 128 px."""
    crop: int = 128
    """Side of the decoded crop in pixels: half of the page, as 256 is at 512 px."""
    instances: int = 2
    """References per sample."""
    rounds: int = 5
    """How often each step is timed."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> None:
    """Prints the table."""
    nets, steps, flops = networks(args.size), {}, {}
    for name, fields in SETTINGS.items():
        losses = LossConfig(**fields, picture_share=1.0, picture_crop=args.crop)
        shapes = training(nets, stage_of(2), losses, instances=args.instances)
        flops[name] = step_cost(*shapes).flops
        steps[name] = compiled_step(shapes)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            jax.block_until_ready(step())
            seconds[name].append(time.perf_counter() - started)
    rows = [_row(name, seconds, flops) for name in steps]
    side = nets.sizes.page
    show(f"stage 2, one sample, {side} px, crop {args.crop} px, {args.instances} references", rows)
    write_json(args.json, rows)


def compiled_step(shapes: Training) -> Callable[[], Any]:
    """A step on random values, called once: what follows is warm."""
    random = np.random.default_rng(0)
    values = jax.tree.map(partial(_drawn, random), shapes[1:])
    step = jax.jit(partial(train_step, shapes.context))
    run = partial(step, *values, jax.random.key(0))
    jax.block_until_ready(run())
    return run


def _drawn(random: np.random.Generator, leaf: Any) -> jax.Array:
    """Kernels that keep activations of order one; ones for scales, whole numbers and flags."""
    if len(leaf.shape) < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.ones(leaf.shape, leaf.dtype)
    spread = np.prod(leaf.shape[:-1]) ** -0.5
    return jnp.asarray(spread * random.standard_normal(leaf.shape, np.float32), leaf.dtype)


def _row(name: str, seconds: dict[str, list[float]], flops: dict[str, float]) -> Row:
    first = next(iter(seconds))
    ratios = [a / b for a, b in zip(seconds[name], seconds[first], strict=True)]
    return {
        "losses": name,
        "GFLOP": flops[name] / 1e9,
        "FLOPs ratio": flops[name] / flops[first],
        "seconds": median(seconds[name]),
        "time ratio": median(ratios),
        "GFLOP/s": flops[name] / 1e9 / median(seconds[name]),
    }


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
