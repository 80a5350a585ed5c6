"""Drawn frames, and clips of them: discs and boxes that move over a plain ground."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from oracles.case_folders import save

SHAPE = (96, 160)
RED, GREEN, BLUE, VIOLET = (200, 40, 40), (30, 140, 60), (40, 60, 200), (150, 40, 160)
PAPER, NIGHT = (255, 252, 240), (90, 120, 150)


def frame(
    things: Sequence[tuple[tuple[int, int], tuple[int, int, int]]],
    ground: tuple[int, int, int] = PAPER,
    border: int = 0,
    shape: tuple[int, int] = SHAPE,
    radius: int = 14,
) -> np.ndarray:
    """Discs on a ground.

    Args:
        things: (x, y) and colour of each.
        border: rows of black above and below.
    """
    picture = np.full((*shape, 3), ground, np.uint8)
    for place, color in things:
        cv2.circle(picture, place, radius, color, -1)
    if border:
        picture[:border] = picture[-border:] = 0
    return picture


def shot(length: int, ground: tuple[int, int, int] = PAPER, border: int = 0) -> list[np.ndarray]:
    """Red and blue move towards each other; every drawing stands for two frames."""
    steps = [3 * (number // 2) for number in range(length)]
    places = ([((30 + x, 40), RED), ((130 - x, 56), BLUE)] for x in steps)
    return [frame(things, ground, border) for things in places]


def write_video(path: Path, frames: Sequence[np.ndarray], rate: int = 24) -> Path:
    """MPEG-4 of good quality."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 20_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_film(path: Path) -> Path:
    """Two shots of 24 and 16 frames between black bars, and frames of nothing but black."""
    black = [np.zeros((*SHAPE, 3), np.uint8)] * 4
    return write_video(path, [*shot(24, border=12), *shot(16, NIGHT, border=12), *black])


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Pictures of two discs in random places, and one that is none."""
    random = np.random.default_rng(seed)
    for number in range(count):
        heights = random.integers(30, 66, 2).tolist()
        things = [((40, heights[0]), RED), ((115, heights[1]), GREEN)]
        save(folder / f"{number}.png", frame(things))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder
