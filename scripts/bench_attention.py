"""Self-attention on CPU: ours against XLA's own and PyTorch's, f32.

    python scripts/bench_attention.py                       # 4096 own tokens, 1024, and 8192 keys

Runs alternate in one process, so that all three see the same machine; ratios are the medians of the
ratios of each round. PyTorch uses as many threads as XLA has cores.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import torch
import tyro
from report import show, write_json

from magiccolor_jax.nn.attention import Implementation, attend


@dataclass(frozen=True, kw_only=True)
class Args:
    """Attention timings."""

    shape: tuple[str, ...] = (
        "4096x4096x8x40",
        "4096x8192x8x40",
        "1024x2048x8x80",
        "1024x1024x8x80",
    )
    """QUERIESxKEYSxHEADSxWIDTH; 8192 keys are 4096 of the page and 4096 of the reference."""
    rounds: int = 7
    """How often each is timed."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> None:
    """Prints the table."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = []
    for text in args.shape:
        query, key, value = _operands(*map(int, text.split("x")))
        calls = {
            "chunked": _ours("chunked", query, key, value),
            "xla": _ours("xla", query, key, value),
            "torch": _theirs(query, key, value),
        }
        rows.append({"shape": text} | _compared(calls, args.rounds))
    show("attention, milliseconds (median) and ratios to `chunked`", rows)
    write_json(args.json, rows)


def _operands(queries: int, keys: int, heads: int, width: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((1, n, heads, width), np.float32) for n in (queries, keys, keys)]


def _ours(implementation: Implementation, *operands: np.ndarray) -> Callable[[], Any]:
    run = jax.jit(lambda q, k, v: attend(q, k, v, implementation=implementation))
    placed = jax.device_put(operands)
    return lambda: jax.block_until_ready(run(*placed))


def _theirs(*operands: np.ndarray) -> Callable[[], Any]:
    # Head-major and contiguous, which suits PyTorch best; diffusers' own views are slower.
    query, key, value = (torch.from_numpy(x).transpose(1, 2).contiguous() for x in operands)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    return run


def _compared(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, and how many times as long as the first the others take."""
    for call in calls.values():
        call()  # compiles, and fills the caches
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(calls))
    pairs = {name: zip(seconds[name], seconds[first], strict=True) for name in calls}
    return {f"{name} ms": 1e3 * median(values) for name, values in seconds.items()} | {
        f"{name} / {first}": median(a / b for a, b in pairs[name])
        for name in calls
        if name != first
    }


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
