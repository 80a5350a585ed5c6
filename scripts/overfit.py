"""Both stages of the training on eight small pages, on a CPU: does the method learn what it should?

    python scripts/overfit.py --art ART.npz --out runs/overfit

Composes pages with known colours, trains a small autoencoder, then stage 1 and stage 2 by the real
loop, exports the result and colours the pages with it: as they are, and with the references of the
first two instances exchanged. Half of the pages show the same drawing twice, in two palettes: only
the references tell which is which. Instances are recoloured at random while training, together with
their references, so that a page's colours cannot be learned by heart.

Every part that is finished is used again: the same command goes on. Exit code 1: a target is
missed.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import tyro
from compose_cases import Args as ComposeArgs
from compose_cases import compose_cases
from jaxtyping import Float, UInt8
from overfit_model import make_model
from report import Row, show, write_json
from rich.console import Console

from magiccolor_jax import Colorizer, cli, read_case
from magiccolor_jax.data.loader import DataConfig
from magiccolor_jax.data.palette import PalettePlay
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.data.samples import Play
from magiccolor_jax.evaluation.methods import exchanged, exchanged_order
from magiccolor_jax.evaluation.palettes import follows, leakage, own_closest
from magiccolor_jax.evaluation.quality import psnr
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.config import ReportConfig, SaveConfig, TrainConfig
from magiccolor_jax.training.loop import Training
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.stages import RANDOM, Stage, stage1, stage2
from magiccolor_jax.types import Case

PSNR = 24.0
"""Least mean over the pages, dB."""

RECOLOURED = {1: 0.5, 2: 0.7}
"""Share of the instances that each stage recolours: more where regions can be confused."""

LOSSES = LossConfig(perceptual=0.0, color=0.0, drop=0.0)
"""Without the terms that read pretrained networks, and without guidance: it colours at scale 1."""

SAMPLING = {"steps": 25, "guidance": 1.0}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Fits a small model to eight pages."""

    art: Path
    """Drawings, as for compose_cases.py."""
    out: Path = Path("runs/overfit")
    """Folder for cases, model, runs and pictures."""
    pages: int = 8
    """Number of pages."""
    autoencoder_steps: int = 2500
    """Steps of the autoencoder."""
    steps: tuple[int, int] = (1500, 4500)
    """Steps of stage 1 and of stage 2."""
    batch: int = 4
    """Pages per step."""
    lr: float = 1e-3
    """Highest learning rate of both stages."""
    seed: int = 0
    """Of everything random."""


def play(share: float) -> Play:
    """Recolours a share of the instances; nothing else changes, for eight pages teach no more."""
    palette = PalettePlay(probability=share, clusters=3, lightness=0.08, tint=0.0)
    return replace(Play.off(), palette=palette)


def main(args: Args) -> int:
    """Exit code: 0 where every target is reached."""
    cases = args.out / "cases"
    compose_cases(ComposeArgs(art=args.art, out=cases, count=args.pages, seed=args.seed))
    make_model(args.out / "start", cases, args.autoencoder_steps, play(RECOLOURED[1]), args.seed)
    for number in (1, 2):
        if code := Training(plan_training(run_of(args, number)), Console(stderr=True)).run():
            return code
    write_png(args.out / "curve.png", curve([args.out / "stage1", args.out / "stage2"]))
    model = args.out / f"model_{args.steps[1]}"
    if not model.exists() and (code := cli.run(["convert", str(args.out / "stage2"), str(model)])):
        return code
    return judge(args, model, [read_case(folder) for folder in sorted(cases.iterdir())])


def run_of(args: Args, number: int) -> TrainConfig:
    """The training of a stage; stage 2 goes on from stage 1's run."""
    stage: Stage = {1: replace(stage1(), origins=RANDOM), 2: stage2()}[number]
    steps = args.steps[number - 1]
    return TrainConfig(
        out=args.out / f"stage{number}",
        init=args.out / ("start" if number == 1 else "stage1"),
        stage=replace(stage, losses=LOSSES),
        data=DataConfig(
            sources=(f"cases:{args.out / 'cases'}",), play=play(RECOLOURED[number]), threads=2
        ),
        batch=args.batch,
        steps=steps,
        seed=args.seed,
        optim=OptimConfig(lr=args.lr, warmup=50, schedule="cosine", weight_decay=0.0),
        average=0.998,
        remat="off",
        save=SaveConfig(every=max(steps // 10, 1), keep=1),
        report=ReportConfig(
            every=max(steps // 100, 1),
            preview_every=max(steps // 5, 1),
            previews=args.batch,
            preview_steps=SAMPLING["steps"],
            guidance=SAMPLING["guidance"],
        ),
    )


def judge(args: Args, model: Path, cases: list[Case]) -> int:
    """Colours the pages, prints and writes what was measured; exit code 1: a target is missed."""
    colorizer = Colorizer.from_pretrained(model)
    orders = [exchanged_order(len(case.references)) for case in cases]
    swapped = [exchanged(case) for case in cases]
    made = colorizer(cases, **SAMPLING)
    other = colorizer(swapped, **SAMPLING)
    rows = [measure(*page) for page in zip(cases, orders, made, other, strict=True)]
    show("pages", rows)
    write_png(args.out / "pages.png", sheet(cases, made, other))
    twins = [row for row in rows if row["first two"] == "one drawing"]
    found = {
        "PSNR, dB": (float(np.mean([row["PSNR, dB"] for row in rows])), PSNR),
        "own reference closest": (_share(rows, "own closest"), 1.0),
        "exchanged colours followed, same drawing twice": (_share(twins, "follows"), 1.0),
        "exchanged colours followed, all pages": (_share(rows, "follows"), None),
    }
    targets = [
        {"what": what, "measured": value, "at least": least, "": least is None or value >= least}
        for what, (value, least) in found.items()
    ]
    show("targets", targets)
    write_json(args.out / "overfit.json", {"pages": rows, "targets": targets})
    return 0 if all(row[""] for row in targets) else 1


def measure(
    case: Case,
    order: list[int],
    made: UInt8[np.ndarray, "H W 3"],
    other: UInt8[np.ndarray, "H W 3"],
) -> Row:
    """A page's row.

    Args:
        order: of the references that `other` was coloured from.
    """
    assert case.target is not None, "composed with one"
    drawn = [entry["id"] for entry in json.loads((case.path / "provenance.json").read_text())]
    pair = [jnp.asarray(p[None] / np.float32(255)) for p in (made, case.target)]
    kept = own_closest(leakage(made, case))
    moved = follows(leakage(other, case, order))
    return {
        "page": case.name,
        "first two": "one drawing" if drawn[0] == drawn[1] else "two drawings",
        "instances": len(drawn),
        "PSNR, dB": float(psnr(*pair)[0]),
        "own closest": kept.tolist(),
        "follows": moved.tolist(),
    }


def _share(rows: Sequence[Row], name: str) -> float:
    """Share of the instances that are closest to what they were given."""
    return float(np.mean([yes for row in rows for yes in row[name]]))


def sheet(
    cases: list[Case], made: list[np.ndarray], other: list[np.ndarray]
) -> UInt8[np.ndarray, "H W 3"]:
    """A row a page: sketch, references, result, truth, result with exchanged references."""
    rows = []
    for case, own, swap in zip(cases, made, other, strict=True):
        assert case.target is not None, "composed with one"
        side = case.sketch.shape[0]
        shown = [cv2.resize(r, (side, side), interpolation=cv2.INTER_AREA) for r in case.references]
        shown += [np.full_like(case.sketch, 255)] * (3 - len(shown))
        rows.append(np.concatenate([case.sketch, *shown, own, case.target, swap], axis=1))
    return np.concatenate(rows)


WIDTH, HEIGHT, MARGIN = 900, 400, 50


def curve(runs: list[Path]) -> UInt8[np.ndarray, "H W 3"]:
    """The denoising loss of runs, one after another, on a logarithmic scale."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    found = [losses_of(run) for run in runs]
    heights = np.log10(np.concatenate([values[:, 1] for values in found]))
    scale = (HEIGHT - 2 * MARGIN) / max(np.ptp(heights), 1e-6)
    total, begun = sum(values[-1, 0] for values in found), 0.0
    for values, run in zip(found, runs, strict=True):
        across = MARGIN + (begun + values[:, 0]) / total * (WIDTH - 2 * MARGIN)
        down = MARGIN + scale * (heights.max() - np.log10(values[:, 1]))
        line = np.rint(np.stack([across, down], axis=1)).astype(np.int32)
        cv2.polylines(picture, [line], False, (40, 90, 180), 2, cv2.LINE_AA)
        begun += values[-1, 0]
        text = f"{run.name}: {values[0, 1]:.3f} to {values[-1, 1]:.3f}"
        at = (int(across[0]), MARGIN // 2)
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def losses_of(run: Path) -> Float[np.ndarray, "N 2"]:
    """Step and mean loss of every line that a run wrote."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return np.array([(line["step"], line["loss"]) for line in lines if "loss" in line])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
