"""A first picture from nothing but a checkout (`make demo`).

Writes a nano stand-in for the released checkpoint, converts it, and colours a real page with it.
The weights are random, so the colours are noise: this shows the path from files to picture, not
quality.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import UInt8
from make_release_checkpoint import Args as ReleaseArgs
from make_release_checkpoint import main as make_release
from PIL import Image

from magiccolor_jax import cli, read_case
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.embedded import CASES

STRIP_HEIGHT = 384
"""Pixels."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """A demonstration with random weights."""

    out: Path = Path("demo")
    """Folder for the checkpoint, the model and the pictures; what exists is used again."""
    case: Path = CASES / "concert_36"
    """Case folder to colour."""


def main() -> None:
    """Makes a checkpoint, converts it, colours the case, and lays everything side by side."""
    args = tyro.cli(Args, description=__doc__)
    release, model, pictures = args.out / "release", args.out / "model", args.out / "pictures"
    if not release.exists():
        make_release(ReleaseArgs(out=release, size="nano", containers="safetensors"))
    if not model.exists():
        run("convert", release, model)
    options = ("--model", model, "--out", pictures, "--recipe", "paper", "--steps", 8)
    run("colorize", args.case, *options)
    strip = args.out / "strip.png"
    write_png(strip, side_by_side(args.case, pictures))
    print(f"\nPage, references and result side by side: {strip}")
    print("The weights are RANDOM: this shows the whole path at work, not its colours.")


def run(*words: object) -> None:
    """Runs a `magiccolor` command, shown as a user would type it; leaves when it fails."""
    print("$ magiccolor", *words, flush=True)
    if code := cli.run([str(word) for word in words]):
        raise SystemExit(code)


def side_by_side(case: Path, pictures: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Sketch, references and result at one height."""
    read = read_case(case)
    with Image.open(pictures / f"{case.name}.png") as image:
        result = np.asarray(image.convert("RGB"))
    tiles = [scaled(picture) for picture in (read.sketch, *read.references, result)]
    return np.concatenate(tiles, axis=1)


def scaled(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Brought to the strip's height."""
    width = round(picture.shape[1] * STRIP_HEIGHT / picture.shape[0])
    return cv2.resize(picture, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
