"""How far the gradients of a whole training step are from PyTorch's autograd, at nano size.

    python scripts/parity_gradients.py       # about five minutes on 2 cores

Per network the largest difference of a trained parameter's gradient, relative to that gradient's
largest value, from float64 PyTorch; beside it float32 PyTorch's own difference. The oracle is
tests/oracles/torch_objective.py. The exit code is 1 if a row misses its tolerance.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from report import ROOT, show, write_json

sys.path.insert(0, str(ROOT / "tests"))  # the oracle is a part of the tests

from oracles.gradients import SETTINGS, WEIGHT_MAPS, Both, Gradients, differences, pictures

TERM, SLOPE = 1e-5, 1e-4
"""Largest relative difference of a loss term and of a gradient that passes."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Parity of the gradients with PyTorch."""

    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> int:
    """Prints the table; returns the exit code."""
    both, shown, rows = Both(), pictures(), []
    for name, setting in SETTINGS.items():
        exact = both.their_gradients(setting, shown)
        plain = both.their_gradients(setting, shown, torch.float32)
        rows += setting_rows(name, both.our_gradients(setting, shown), plain, exact)
    show("largest difference of the training step from float64 PyTorch (nano, 128x192)", rows)
    write_json(args.json, rows)
    return 0 if all(row["passed"] for row in rows) else 1


def setting_rows(
    name: str, ours: Gradients, plain: Gradients, exact: Gradients
) -> list[dict[str, Any]]:
    """One row for the loss's terms, one per network."""
    sides = (ours, plain)
    terms = [
        max(abs(side.terms[term] / value - 1) for term, value in exact.terms.items())
        for side in sides
    ]
    rows = [_row(name, "loss terms", len(exact.terms), terms, TERM)]
    slopes = [differences(side, exact) for side in sides]
    for network in WEIGHT_MAPS:
        paths = [path for path in exact.slopes if path.startswith(f"{network}/")]
        worst = [max(side[path] for path in paths) for side in slopes]
        rows.append(_row(name, network, len(paths), worst, SLOPE))
    return rows


def _row(step: str, what: str, count: int, worst: list[float], tolerance: float) -> dict[str, Any]:
    """`worst` of ours and of float32 PyTorch."""
    ours, plain = map(float, worst)
    return {
        "step": step,
        "what": what,
        "tensors": count,
        "difference": ours,
        "float32 PyTorch's": plain,
        "tolerance": tolerance,
        "passed": ours <= tolerance,
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
