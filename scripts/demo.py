"""First pictures from nothing but a checkout (`make demo`).

Colours the cases that come with the package by the model that comes with it, and lays each page,
its references and the result side by side.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from magiccolor_jax import cli, read_case
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.embedded import CASES

STRIP_HEIGHT = 256
"""Pixels."""

WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Args:
    """A demonstration."""

    out: Path = Path("demo")
    """Folder for the pictures."""
    cases: tuple[Path, ...] = tuple(sorted(CASES.iterdir()))
    """Case folders to colour."""


def main() -> None:
    """Colours the cases and lays everything side by side."""
    args = tyro.cli(Args, description=__doc__)
    words = ("colorize", *args.cases, "--out", args.out)
    print("$ magiccolor", *words, flush=True)
    if code := cli.run([str(word) for word in words]):
        raise SystemExit(code)
    strip = args.out / "strip.png"
    write_png(strip, stacked([side_by_side(case, args.out) for case in args.cases]))
    print(f"\nPages, results and references side by side: {strip}")


def side_by_side(case: Path, pictures: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Sketch, result and references at one height."""
    read = read_case(case)
    with Image.open(pictures / f"{case.name}.png") as image:
        result = np.asarray(image.convert("RGB"))
    tiles = [scaled(picture) for picture in (read.sketch, result, *read.references)]
    return np.concatenate(tiles, axis=1)


def scaled(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Brought to the strip's height."""
    width = round(picture.shape[1] * STRIP_HEIGHT / picture.shape[0])
    return cv2.resize(picture, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA)


def stacked(strips: list[UInt8[np.ndarray, "H _ 3"]]) -> UInt8[np.ndarray, "L W 3"]:
    """One below the other, on white."""
    width = max(strip.shape[1] for strip in strips)
    rows = [
        np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=WHITE)
        for strip in strips
    ]
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
