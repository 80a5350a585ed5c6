"""Writes tests/golden/lineart.npz: what kornia's CLAHE makes of pictures, for
tests/lineart/test_clahe.py.

torchvision does not live with this project's PyTorch, so this runs in a venv of its own, outside
the repository:

    python3.11 -m venv ORACLE
    ORACLE/bin/pip install torch==2.14.1 torchvision==0.29.1 kornia==0.8.3
    ORACLE/bin/python scripts/goldens_lineart.py
    ORACLE/bin/pip install kornia==0.9.0
    ORACLE/bin/python scripts/goldens_lineart.py

Each version of kornia replaces what it wrote before, and nothing else.
"""

import zlib
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "lineart.npz"

STEPS = 4000
"""Pictures have this many levels, which do not fall on the 256 of the histograms."""


class Trial(NamedTuple):
    """A picture's shape, and how its contrast is evened out."""

    shape: tuple[int, int, int]
    limit: float
    grid: int


TRIALS = {
    "default": Trial((43, 61, 2), 40.0, 8),
    "magiccolor": Trial((57, 38, 1), 1.0, 8),
    "unlimited": Trial((40, 33, 1), 0.0, 4),
    "whole tiles": Trial((32, 48, 1), 2.5, 8),
    "two tiles": Trial((31, 22, 1), 3.0, 2),
    "wide": Trial((17, 90, 1), 1.7, 3),
    "one tile": Trial((19, 24, 1), 1.3, 1),
}


def picture(name: str) -> np.ndarray:
    """float32 [H W C] in [0, 1], both ends included: slopes, a dark half, grain."""
    height, width, channels = TRIALS[name].shape
    rows, columns = np.mgrid[:height, :width]
    slope = (rows * 7 + columns * 11) % 97 * (STEPS // 97)
    dark = np.where(columns < width // 2, 3, 1)
    grain = np.random.default_rng(zlib.crc32(name.encode())).integers(
        0, STEPS // 4, (height, width, channels)
    )
    levels = np.minimum((slope // dark)[..., None] + grain, STEPS)
    levels[0, 0], levels[-1, -1] = 0, STEPS
    return (levels / STEPS).astype(np.float32)


def main() -> None:
    """Runs all trials."""
    torch, kornia = import_module("torch"), import_module("kornia")
    version = ".".join(kornia.__version__.split(".")[:2])
    found = dict(np.load(GOLDEN)) if GOLDEN.is_file() else {}
    for name, trial in TRIALS.items():
        pixels = torch.from_numpy(picture(name)).movedim(-1, 0)[None]
        made = kornia.enhance.equalize_clahe(pixels, trial.limit, (trial.grid, trial.grid))
        found[f"{version}/{name}"] = made[0].movedim(0, -1).numpy()
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, **found)
    print(f"{GOLDEN}: kornia {kornia.__version__}, {GOLDEN.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
