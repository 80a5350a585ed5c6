"""Whole training runs of test size: a model folder, case folders with targets, a config."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from oracles.case_folders import block_mask, noise, save
from oracles.nano_model import write_nano_model
from oracles.training import SMALL_SIZES, small_config

from magiccolor_jax.data.loader import DataConfig
from magiccolor_jax.encoders.vgg import VGG19Config
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.config import ReportConfig, SaveConfig, TrainConfig
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.stages import Stage, stage1, stage2

SHAPE = (64, 64)


def write_start(folder: Path) -> Path:
    """A model folder to start from, VGG-19 among its networks."""
    return write_nano_model(folder, small_config(), SMALL_SIZES, vgg19=VGG19Config.nano())


def write_pages(folder: Path, count: int, instances: int = 2) -> Path:
    """Case folders with targets: blocks of noise as instances, their outlines as sketches."""
    for page in range(count):
        case = folder / f"page{page}"
        target, sketch = np.full((*SHAPE, 3), 255, np.uint8), np.full((*SHAPE, 3), 255, np.uint8)
        for number in range(1, instances + 1):
            left = 2 + (number - 1) * 60 // instances
            box = (6, left, 57, left + 56 // instances)
            mask = block_mask(SHAPE, *box)
            colours = noise((*SHAPE, 3), 10 * page + number) // 3 + 40 * number
            target[mask > 0] = colours[mask > 0]
            sketch[block_mask(SHAPE, 6, left, 57, left + 1) > 0] = 0
            save(case / f"sketch_masks/{number}.png", mask)
            save(case / f"references/{number}.png", colours[4:40, 4:40])
        save(case / "target.png", target)
        save(case / "sketch.png", sketch)
    return folder


def small_stage(second: bool = True) -> Stage:
    """A stage on the small networks, from the model folder's own weights."""
    made = stage2() if second else stage1()
    losses = LossConfig(picture_crop=32, picture_share=1.0)
    own = tuple(
        (name, name)
        for name in ("denoiser", "reference", "sketch_guider", "instance_guider", "context")
    )
    fields = {f: getattr(made, f) for f in ("name", "instances", "instance_guider")}
    # The released stages leave the fourth up-block as it is; these networks have two.
    table = ((r"reference/up_blocks/1/.*", False), *made.trainable)
    return Stage(**fields, trainable=table, losses=losses, origins=own)


def cheap_run(folder: Path, **changes: Any) -> TrainConfig:
    """`small_run` without the terms that look at pictures, which compile for long."""
    losses = LossConfig(perceptual=0.0, color=0.0)
    return small_run(folder, **({"stage": replace(small_stage(), losses=losses)} | changes))


def looking(folder: Path) -> dict[str, Any]:
    """Settings under which a run validates at steps 3 and 6 and previews at 0 and 6."""
    pages = f"cases:{folder / 'pages'}"
    return {
        "report": ReportConfig(
            every=1,
            preview_every=6,
            previews=2,
            preview_steps=2,
            validate_every=3,
            validation_batches=2,
        ),
        "data": DataConfig(sources=(pages,), validation=(pages,)),
    }


def losses_of(run: Path) -> list[tuple[int, float]]:
    """(step, loss) of every line that a run wrote."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def small_run(folder: Path, **changes: Any) -> TrainConfig:
    """Six steps of stage 2 on four pages; every step is reported."""
    settings: dict[str, Any] = {
        "out": folder / "run",
        "init": folder / "start",
        "stage": small_stage(),
        "data": DataConfig(sources=(f"cases:{folder / 'pages'}",)),
        "batch": 2,
        "steps": 6,
        "average": 0.9,
        "remat": "off",
        "optim": OptimConfig(lr=1e-3, warmup=0),
        "save": SaveConfig(every=3),
        "report": ReportConfig(every=1, preview_every=0),
    }
    return TrainConfig(**(settings | changes))
