"""How far our networks and samples are from PyTorch's, under the same weights and inputs.

    python scripts/parity.py --size nano                         # two minutes
    python scripts/parity.py --size full --work /data/parity     # about 25 minutes on 2 cores
    python scripts/parity.py --size full --release RELEASE --model MODEL --sample 512x512:20:release

Prints the largest difference relative to the oracle's largest value, per network and for whole
guided samples of recipe `release`; the exit code is 1 if a row misses its tolerance. The oracle is
diffusers, transformers and tests/oracles. PyTorch and JAX run one after the other, in processes of
their own. Samples with colour matching take PyTorch's nearest positions, since neighbours are up to
1e-7 close; the share of positions that ours finds by itself, step by step, is a row of its own.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from make_release_checkpoint import VGG19, VGG19_SIZES, random_tensor
from parity_job import Job, Sample
from random_inputs import case_inputs, load, network_inputs, page_name, parse_page, save
from report import ROOT, folders, run_python, show, write_json

from converters.containers import FileRecord, write_weights
from converters.keylist import expected_tensors

NETWORK, SAMPLE = 1e-4, 1e-3
"""Largest relative difference that passes."""

SHARE = 0.99
"""Smallest share of equal nearest positions that passes, at every step."""

PAGES = {"nano": ("128x128", "128x192"), "full": ("512x512", "384x640")}
SAMPLES = {
    "nano": ("128x128:20:off", "128x192:20:off", "128x128:20:release"),
    "full": ("256x384:20:off", "512x512:2:release"),
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Parity with PyTorch."""

    size: Literal["nano", "full"] = "nano"
    """Of the stand-in release, and of the default pages and samples."""
    release: Path | None = None
    """The release's folder; default: a stand-in with random weights is made."""
    model: Path | None = None
    """The same release converted; default: it is converted."""
    work: Path | None = None
    """Folder for what is made and for the tensors that pass between the processes; its stand-in is
    used again by the next run. Default: a temporary folder. At full size it needs 40 GB."""
    page: tuple[str, ...] = ()
    """HEIGHTxWIDTH in pixels of the networks' inputs; default a square and another one."""
    sample: tuple[str, ...] = ()
    """HEIGHTxWIDTH:STEPS:MATCHING (off or release) of the whole samples."""
    guidance: float = 3.5
    """Guidance scale of the samples."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> int:
    """Runs both sides and prints the table; returns the exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        job = prepare(args, work)
        seconds = run_sides(job)
        rows = network_rows(job) + [
            row for sample in job.samples for row in sample_rows(job, sample)
        ]
    show(f"largest difference from PyTorch, relative to its largest value ({args.size})", rows)
    print("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    write_json(args.json, {"size": args.size, "rows": rows, "seconds": seconds})
    return 0 if all(row["passed"] for row in rows) else 1


def prepare(args: Args, work: Path) -> Job:
    """Makes what is missing of the folders, and writes all inputs."""
    release, model = folders(args.size, args.release, args.model, work)
    job = Job(
        release=release,
        model=model,
        work=work,
        pages=tuple(map(parse_page, args.page or PAGES[args.size])),
        samples=tuple(map(Sample.parse, args.sample or SAMPLES[args.size])),
        scale=args.guidance,
    )
    make_vgg19(job, args.size)
    config = job.config
    for page in job.pages:
        save(job.inputs(page), network_inputs(config, page))
    for sample in job.samples:
        save(job.case(sample.page), case_inputs(config, sample.page))
    return job


def make_vgg19(job: Job, size: str) -> None:
    """Random weights under torchvision's names, and the same converted."""
    tensors = expected_tensors("vgg19", VGG19_SIZES[size] | {"pooled": 49})
    record = FileRecord(path=VGG19, container="torch_legacy", tensors=tensors)
    random = np.random.default_rng(0)
    if not job.vgg19_weights.exists():
        made = ((key, random_tensor(key, spec, random)) for key, spec in tensors.items())
        write_weights(job.vgg19_weights, record, made)
    if not job.vgg19_model.exists():
        run_python("-m", "converters", job.vgg19_weights, job.vgg19_model)


def run_sides(job: Job) -> dict[str, float]:
    """Runs the four processes, one after the other; returns their seconds."""
    seconds, path = {}, job.write()
    for what in ("networks", "samples"):
        for side in ("torch", "jax"):
            started = time.perf_counter()
            run_python(ROOT / f"scripts/parity_{side}.py", what, path)
            seconds[f"{side} {what}"] = time.perf_counter() - started
    return seconds


def network_rows(job: Job) -> list[dict[str, Any]]:
    """One row per network, variant and page."""
    rows = []
    for network, page in job.networks:
        theirs, ours = (load(job.output(side, network, page)) for side in ("torch", "jax"))
        if set(theirs) != set(ours):
            raise ValueError(f"{network}: outputs {sorted(ours)}, PyTorch's {sorted(theirs)}")
        for variant in dict.fromkeys(name.split("/")[0] for name in theirs):
            names = [name for name in theirs if name.split("/")[0] == variant]
            worst = max(difference(ours[name], theirs[name]) for name in names)
            rows.append(_row(network, variant, page_name(page), worst, NETWORK))
    return rows


def sample_rows(job: Job, sample: Sample) -> list[dict[str, Any]]:
    """Rows of one whole sample."""
    theirs, ours = (load(job.sampled(side, sample)) for side in ("torch", "jax"))
    what, page = f"{sample.steps} steps, matching {sample.matching}", page_name(sample.page)
    rows = [
        _row(f"sample {name}", what, page, difference(ours[name], theirs[name]), SAMPLE)
        for name in ("latents", "pixels")
    ]
    if sample.matching == "release":
        shares = (ours["nearest"] == theirs["nearest"]).mean(axis=1)
        print(f"{sample}: share of equal nearest positions, by step: {shares.round(4).tolist()}")
        share = float(shares.min())
        row = _row("sample neighbours", "smallest share that is equal", page, share, SHARE)
        rows.append(row | {"passed": share >= SHARE})
    return rows


def _row(network: str, what: str, page: str, value: float, tolerance: float) -> dict[str, Any]:
    return {
        "network": network,
        "what": what,
        "page": page,
        "value": value,
        "tolerance": tolerance,
        "passed": value <= tolerance,
    }


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to PyTorch's largest value.

    Raises:
        ValueError: the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"expected PyTorch's shape {theirs.shape}, got {ours.shape}")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
