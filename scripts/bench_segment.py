"""Automatic masks of a picture beside segment-anything's: whether they are the same, and seconds.

    python scripts/bench_segment.py --oracle ORACLE/bin/python

ORACLE is the environment of scripts/goldens_sam.py. Both sides have ViT-B under the same drawn
weights and the same settings, and take turns in one run; times are medians, the first picture
(compiling) is told apart.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image
from report import show, write_json
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.embedded import CASES
from magiccolor_jax.segment.automatic import AutomaticConfig, segment
from magiccolor_jax.segment.predictor import Predictor
from magiccolor_jax.segment.sam import SAM
from magiccolor_jax.segment.sam_config import SAMConfig

SETTINGS = {"pred_iou_thresh": -10.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
"""So that masks of drawn weights pass."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compares both."""

    oracle: Path
    """Python of an environment with segment-anything."""
    picture: Path = CASES / "concert_36" / "references" / "1.png"
    """What is segmented."""
    points_per_side: int = 8
    """Of the grid of prompts."""
    points_per_batch: int = 64
    """Prompts at once."""
    rounds: int = 3
    """Turns that both sides take."""
    json: Path | None = None
    """Also write the table here."""


class Turn(NamedTuple):
    """What one side did."""

    boxes: list[list[int]]
    """Left, top, width, height; sorted."""
    first: float
    """Seconds of the first picture."""
    warm: float
    """Seconds of the same one again."""


def main(args: Args) -> None:
    """Prints the table."""
    settings = SETTINGS | {
        "points_per_side": args.points_per_side,
        "points_per_batch": args.points_per_batch,
    }
    with Image.open(args.picture) as image:
        picture = np.asarray(image.convert("RGB"))
    predictor = Predictor(seeded_network(SAM, SAMConfig.vit_b(), maps.SAM))
    pairs = [
        (ours(predictor, picture, settings), theirs(args.oracle, args.picture, settings))
        for _ in range(args.rounds)
    ]
    height, width = picture.shape[:2]
    one, other = pairs[0]
    seconds = [median(turn.warm for turn in side) for side in zip(*pairs, strict=True)]
    row = {
        "masks, ours": len(one.boxes),
        "masks, theirs": len(other.boxes),
        "boxes are equal": one.boxes == other.boxes,
        "ours, s": seconds[0],
        "theirs, s": seconds[1],
        "theirs takes": f"{seconds[1] / seconds[0]:.2f}x",
        "our first picture, s": one.first,
    }
    count = args.points_per_side**2
    show(f"ViT-B, {width} x {height}, {count} prompts, {args.rounds} rounds", [row])
    write_json(args.json, row)


def ours(
    predictor: Predictor, picture: UInt8[np.ndarray, "H W 3"], settings: dict[str, Any]
) -> Turn:
    """Our turn."""
    config = AutomaticConfig(**settings)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        boxes = segment(predictor, picture, config).boxes
        times.append(time.perf_counter() - start)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return Turn(sorted(sides.tolist()), *times)


def theirs(python: Path, picture: Path, settings: dict[str, Any]) -> Turn:
    """segment-anything's, in its own environment."""
    script = Path(__file__).with_name("bench_segment_oracle.py")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "found.json"
        command = [python, script, picture, json.dumps(settings), result]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
        return Turn(**json.loads(result.read_text()))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
