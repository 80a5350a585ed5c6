"""Time and memory of one guided sample: ours against PyTorch, and 16 references against 1.

    python scripts/bench_sampling.py --size nano
    python scripts/bench_sampling.py --size full --release RELEASE --model MODEL --page 512

The processes alternate (ours, PyTorch, ours with 16 references; `rounds` times), because all the
networks fit in memory only once. Each measures the parts of a call when warm, in fewer steps than
are asked for:

    ours              = references + conditions + STEPS x step + decode
    PyTorch, release  = encode + STEPS x (step with everything in it) + decode
    PyTorch, hoisted  = encode + constant + STEPS x step + decode

Ratios are medians of the ratios of each round. PyTorch: inference_mode, SDPA, f32, as many threads
as we have cores. Its hoisted order leaves cross-attention over one token in the loop, where its
modules have it; ours takes it out, as it is constant.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import tyro
from report import ROOT, folders, run_python, show, write_json

Timings = dict[str, float]
Round = dict[str, Timings]
"""`ours`, `torch`, `many` (ours with 16 references) -> its timings."""

OURS_CONSTANT = ("references", "conditions", "decode")
PROGRAMS = (*OURS_CONSTANT, "loop")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Sampling timings."""

    size: Literal["nano", "full"] = "nano"
    """Of the stand-in release."""
    release: Path | None = None
    """The release's folder; default: a stand-in with random weights is made."""
    model: Path | None = None
    """The same release converted; default: it is converted."""
    work: Path | None = None
    """Folder for what is made and for the compilation cache; default a temporary one. A cache
    that is there already makes the first compile times those of the cache."""
    page: int = 512
    """Side of the square page in pixels."""
    steps: int = 20
    """Steps that the totals are for."""
    measured_steps: int = 2
    """Steps that are timed."""
    repeats: int = 2
    """Warm runs of each constant part in a process."""
    rounds: int = 3
    """How often the processes alternate."""
    references: int = 16
    """How many are compared with one."""
    guidance: float = 3.5
    """Guidance scale."""
    matching: Literal["off", "release"] = "off"
    """Colour matching, in all of them."""
    threads: int = 2
    """Cores that each process may use."""
    json: Path | None = None
    """Where all timings go as JSON."""


def main(args: Args) -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        rounds = measure(args, work)
    against = against_torch(args, rounds)
    many = many_references(args, rounds)
    compiling = compile_times(rounds)
    show(f"seconds of one case, {args.page} px, {args.steps} steps (medians)", against)
    show(f"{args.references} references against 1 (medians)", many)
    show("seconds of compiling: first run, and from the persistent cache", compiling)
    write_json(
        args.json,
        {"against": against, "references": many, "compiling": compiling, "rounds": rounds},
    )


def measure(args: Args, work: Path) -> list[Round]:
    """Runs the processes in turn."""
    work.mkdir(parents=True, exist_ok=True)
    release, model = folders(args.size, args.release, args.model, work)
    setup = {
        "release": str(release),
        "model": str(model),
        "cache": str(work / "compiled"),
        "page": f"{args.page}x{args.page}",
        "steps": args.measured_steps,
        "repeats": args.repeats,
        "scale": args.guidance,
        "matching": args.matching,
    }
    turns = {"ours": ("ours", 1), "torch": ("torch", 1), "many": ("ours", args.references)}
    rounds = []
    for _ in range(args.rounds):
        found = {}
        for name, (side, references) in turns.items():
            (work / "setup.json").write_text(json.dumps(setup | {"references": references}))
            files = work / "setup.json", work / "result.json"
            run_python(ROOT / "scripts/bench_sides.py", side, *files, threads=args.threads)
            found[name] = json.loads((work / "result.json").read_text())
        rounds.append(found)
    return rounds


def our_total(found: Timings, steps: int) -> float:
    """Seconds of a whole call."""
    return sum(found[part] for part in OURS_CONSTANT) + steps * found["step"]


def torch_total(found: Timings, order: str, steps: int) -> float:
    """Seconds of a whole call in the `release` or the `hoisted` order."""
    constant = found["encode"] + found[f"{order} constant"] + found["decode"]
    return constant + steps * found[f"{order} step"]


def against_torch(args: Args, rounds: list[Round]) -> list[dict[str, Any]]:
    """Ours, and PyTorch in both orders."""
    steps = args.steps
    ours = [our_total(r["ours"], steps) for r in rounds]
    rows = [
        {
            "what": "ours",
            "per call": median(
                t - steps * r["ours"]["step"] for t, r in zip(ours, rounds, strict=True)
            ),
            "per step": median(r["ours"]["step"] for r in rounds),
            f"{steps} steps": median(ours),
            "ratio": 1.0,
            "peak GB": max(r["ours"]["peak GB"] for r in rounds),
        }
    ]
    for order in ("release", "hoisted"):
        theirs = [torch_total(r["torch"], order, steps) for r in rounds]
        step = [r["torch"][f"{order} step"] for r in rounds]
        row = {
            "what": f"PyTorch, {order} order",
            "per call": median(t - steps * s for t, s in zip(theirs, step, strict=True)),
            "per step": median(step),
            f"{steps} steps": median(theirs),
            "ratio": median(a / b for a, b in zip(theirs, ours, strict=True)),
            "peak GB": max(r["torch"]["peak GB"] for r in rounds),
        }
        rows.append(row)
    return rows


def many_references(args: Args, rounds: list[Round]) -> list[dict[str, Any]]:
    """Many references against one."""
    parts = {
        "denoising loop": lambda t: args.steps * t["step"],
        "whole call": lambda t: our_total(t, args.steps),
        "whole call, cached references": lambda t: our_total(t, args.steps) - t["references"],
        "peak memory": lambda t: t["peak GB"],
    }
    rows = []
    for name, value in parts.items():
        one, many = ([value(r[key]) for r in rounds] for key in ("ours", "many"))
        ratio = median(b / a for a, b in zip(one, many, strict=True))
        rows.append(
            {"what": name, "1": median(one), f"{args.references}": median(many), "ratio": ratio}
        )
    return rows


def compile_times(rounds: list[Round]) -> list[dict[str, Any]]:
    """How much longer than a warm one the first run of each program took."""

    def extra(found: Timings, part: str) -> float:
        return found[f"first {part}"] - found[part]

    rows = []
    for part in PROGRAMS:
        first, *later = (extra(r["ours"], part) for r in rounds)
        rows.append({"program": part, "first": first, "cached": median(later or [first])})
    return rows


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
