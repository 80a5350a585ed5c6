"""Training speed: our step beside PyTorch's, the cost of more references, and the data's pace.

    PYTHONPATH=tests python scripts/bench_training.py

Steps of both sides take turns in one run on the same cores; ratios are medians of each round's.
Both minimise the edge-weighted denoising loss and the perceptual term on a decoded crop; colour
matching is left out, whose oracle is written for clarity. The data are read as a training reads
them, on one thread, at 512 px.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import tyro
from abstract_training import Size, networks, stage_of, training
from bench_losses import compiled_step
from report import Row, show, write_json

from magiccolor_jax.data.loader import DataConfig, Sampling, batches
from magiccolor_jax.data.records import Provenance
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.shards import write_records
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.embedded import CASES
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes


@dataclass(frozen=True, kw_only=True)
class Args:
    """Training speed."""

    sizes: tuple[Size, ...] = ("nano", "mid")
    """Models: `nano`, 128 px; `mid`, a quarter of the released widths, 256 px."""
    references: tuple[int, ...] = (1, 10)
    """Numbers of references whose steps are compared, on the largest of these models."""
    rounds: int = 5
    """How often each step is timed."""
    samples: int = 24
    """Samples that are made for the data's pace."""
    cases: Path = field(default=CASES)
    """Case folders; those with a target are read."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> None:
    """Prints three tables."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tables = {
        "our step and PyTorch's, one sample, two references": [
            against_torch(size, args.rounds) for size in args.sizes
        ],
        f"more references, {args.sizes[-1]}": references(args),
        "samples per second on one core, 512 px": pace(args),
    }
    for title, rows in tables.items():
        show(title, rows)
    write_json(args.json, tables)


def against_torch(size: Size, rounds: int) -> Row:
    """Seconds of both sides' steps."""
    from torch_training import torch_step

    nets = networks(size)
    losses = _losses(nets.sizes.page)
    ours = compiled_step(training(nets, stage_of(2), losses, instances=2))
    theirs = torch_step(nets, losses, 2)
    theirs()
    seconds = take_turns({"ours": ours, "PyTorch": theirs}, rounds)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {
        "model": f"{size}, {nets.sizes.page} px",
        "ours, s": median(seconds["ours"]),
        "PyTorch, s": median(seconds["PyTorch"]),
        "ours is faster by": median(ratios),
    }


def references(args: Args) -> Sequence[Row]:
    """Seconds of our step at several numbers of references."""
    nets = networks(args.sizes[-1])
    losses = _losses(nets.sizes.page)
    steps = {
        str(count): compiled_step(training(nets, stage_of(2), losses, instances=count))
        for count in args.references
    }
    seconds = take_turns(steps, args.rounds)
    first = seconds[str(args.references[0])]
    return [
        {
            "references": name,
            "seconds": median(found),
            "ratio": median(a / b for a, b in zip(found, first, strict=True)),
        }
        for name, found in seconds.items()
    ]


def take_turns(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round."""
    import jax

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            jax.block_until_ready(step())
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _losses(page: int) -> LossConfig:
    return LossConfig(color=0.0, picture_share=1.0, picture_below=1.0, picture_crop=page // 2)


def pace(args: Args) -> Sequence[Row]:
    """Samples per second of case folders and of shards of the same scenes."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [p.parent for p in args.cases.glob("*/target.*")]
        cases = Path(temporary) / "cases"
        cases.mkdir()
        for folder in folders:
            (cases / folder.name).symlink_to(folder.resolve())
        source = open_source(f"cases:{cases}")
        about = Provenance(source="embedded cases", author="see LICENSE.txt", licence="MIT")
        scenes = ((source[i], about) for i in range(len(source)))
        write_records(Path(temporary) / "shards", scenes)
        return [
            _pace(kind, f"{kind}:{Path(temporary) / name}", args.samples)
            for kind, name in (("cases", "cases"), ("records", "shards"))
        ]


def _pace(kind: str, where: str, samples: int) -> Row:
    cv2.setNumThreads(1)  # one core, as the row says
    source = open_source(where)
    maker = Maker(Play(), Recipe.paper(), Sizes(), instances=10)
    sampling = Sampling.of(source, maker, 1, 0)
    config = DataConfig(threads=1, ahead=1)
    reading = batches(sampling, config, range(1), range(samples + 1))
    next(reading)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in reading:
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "source": kind,
        "scenes": len(source),
        "samples/s": samples / wall,
        "samples per CPU second": samples / cpu,
    }


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
