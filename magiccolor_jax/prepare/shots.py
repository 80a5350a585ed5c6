"""Frames of a clip -> shots of different frames, and the frames without black borders.

Cuts and likeness are told by thumbnails of every frame. A cut is a frame that differs much from
the one before it, and more than its neighbours do from theirs, for a fast pan is none. Dissolves
are not found. Two frames are alike where no cell of the picture has changed: of a mouth that moves,
the mean over the picture would tell nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from magiccolor_jax.data.transforms import Picture, Rectangle

SMALL = (18, 32)
"""Height and width of a thumbnail."""

NEAR, STANDS_OUT = 2, 3.0
"""A cut's difference is that many times the mean of so many neighbours on each side."""

BLACK, QUANTILE = 32, 0.98
"""A row is black where that share of its pixels are below this level in every frame; the rest may
be a station's logo or noise."""

LONGEST = 24
"""Most frames of a shot that are in memory at once; longer ones are cut into such parts."""

ROUNDING = 0.01
"""Levels that a mean may be off."""

Small = UInt8[np.ndarray, "18 32 3"]


@dataclass(frozen=True, kw_only=True)
class ShotConfig:
    """Which frames of a clip are taken."""

    stride: int = 12
    """Every such frame of a shot is looked at."""
    cut: float = 16.0
    """Least mean difference of a cut, in levels, 0..255."""
    alike: float = 6.0
    """Largest difference of a cell of frames that are alike, in levels, 0..255."""

    def __post_init__(self):
        if self.stride < 1 or not 0 < self.cut <= 255 or not 0 <= self.alike <= 255:
            raise ValueError(
                "--stride, --cut, --alike: expected a stride of at least 1, a cut in (0, 255] and "
                f"alike in [0, 255], got {self.stride}, {self.cut} and {self.alike}"
            )


def thumbnail(picture: Picture) -> Small:
    """Each pixel is the mean of a cell of the picture."""
    return cv2.resize(picture, SMALL[::-1], interpolation=cv2.INTER_AREA)


def find_shots(small: UInt8[np.ndarray, "T 18 32 3"], config: ShotConfig) -> list[list[int]]:
    """Numbers of the frames that are taken, shot by shot."""
    starts = [0, *_cuts(small, config.cut), len(small)]
    shots = [range(a, b, config.stride) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return [_distinct(small, shot, config.alike) for shot in shots if shot]


def _cuts(small: UInt8[np.ndarray, "T 18 32 3"], least: float) -> list[int]:
    """Numbers of the frames that begin another shot."""
    pairs = zip(small[:-1], small[1:], strict=True)
    differences = [np.abs(b.astype(np.int16) - a).mean() for a, b in pairs]
    found = []
    for at, difference in enumerate(differences):
        beside = differences[max(at - NEAR, 0) : at] + differences[at + 1 : at + 1 + NEAR]
        if difference >= max(least, STANDS_OUT * float(np.mean(beside)) if beside else 0.0):
            found.append(at + 1)
    return found


def _distinct(
    small: UInt8[np.ndarray, "T 18 32 3"], numbers: Sequence[int], alike: float
) -> list[int]:
    """Those that are not like an earlier one."""
    kept = [numbers[0]]
    for number in numbers[1:]:
        changes = np.abs(small[kept].astype(np.int16) - small[number])  # [kept 18 32 3]
        if changes.reshape(len(kept), -1).max(axis=1).min() > alike:
            kept.append(number)
    return kept


def joined(
    small: UInt8[np.ndarray, "T 18 32 3"], shots: Sequence[Sequence[int]], alike: float
) -> list[int]:
    """For each shot the number of the first one that it belongs together with: shots of which
    frames that were taken are alike, and shots that belong together with the same one.

    Frames of one colour, such as the black between scenes, join nothing.

    Args:
        shots: numbers of the frames that were taken.
        alike: largest difference of a cell, in levels.
    """
    taken = np.array([number for shot in shots for number in shot], int)  # [K]
    groups = np.repeat(np.arange(len(shots)), [len(shot) for shot in shots])  # [K]
    cells = small[taken].reshape(len(taken), SMALL[0] * SMALL[1], 3)  # [K cells 3]
    plain = (np.ptp(cells, axis=1) <= alike).all(axis=1)
    cells, groups, shot_of = cells[~plain], groups[~plain], groups[~plain].copy()
    # Means of large areas differ no more than their cells: they tell most pairs apart cheaply.
    areas = cells.reshape(len(cells), 3, 6, 4, 8, 3).mean(axis=(2, 4), dtype=np.float32)
    areas = areas.reshape(len(cells), 36)
    for number in range(1, len(cells)):
        others = np.flatnonzero(groups[:number] != groups[number])
        near = np.abs(areas[others] - areas[number]).max(axis=1, initial=0) <= alike + ROUNDING
        others = others[near]
        changes = np.abs(cells[others].astype(np.int16) - cells[number]).max(axis=(1, 2))
        for group in np.unique(groups[others[changes <= alike]]):
            pair = sorted((group, groups[number]))
            groups[groups == pair[1]] = pair[0]
    first = np.arange(len(shots))
    first[shot_of] = groups
    return first.tolist()


def parts(shot: Sequence[int]) -> list[list[int]]:
    """A shot in parts of about equal length."""
    count = -(-len(shot) // LONGEST)
    return [part.tolist() for part in np.array_split(np.asarray(shot), count)]


def inside(frames: Sequence[Picture]) -> Rectangle | None:
    """What frames of one size show beside black borders; None where all of it is black."""
    # Their brightness: the colours of what is beside a border bleed into it.
    brightest = np.max([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames], axis=0)  # [H W]
    top, bottom = _ends(np.quantile(brightest, QUANTILE, axis=1) > BLACK)
    if top == bottom:
        return None
    # Columns of what is left: a black row has no say on whether a column is black.
    left, right = _ends(np.quantile(brightest[top:bottom], QUANTILE, axis=0) > BLACK)
    return Rectangle(top, left, bottom - top, right - left) if left < right else None


def _ends(shows: Bool[np.ndarray, "n"]) -> tuple[int, int]:
    """First of those that show something, and the one behind the last."""
    found = np.flatnonzero(shows)
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)
