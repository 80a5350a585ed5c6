"""Colourings that need no weights: what a learned model has to beat.

Each takes a case and gives the page. Outside all masks the page stays as it was; where masks
overlap the higher id wins. All but `grey` and `reinhard` lay colours under the sketch: white paper
takes the colour, black lines stay.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.transforms import WHITE, Picture, mask_box, resize
from magiccolor_jax.types import Case

CELLS = 8
"""Cells along one side, whose mean colours `by_position` lays out."""

SIDE = 128
"""Longest side, in pixels, at which `nearest_patch` compares."""

PATCH = 8
"""Side of its patches, in pixels."""


class Region(NamedTuple):
    """An instance, cut out by its box: on the page, and in its reference."""

    sketch: Float[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    reference: Float[np.ndarray, "y x 3"]
    reference_mask: Bool[np.ndarray, "y x"]


def grey(case: Case) -> Picture:
    """The sketch itself."""
    return case.sketch.copy()


def mean_color(case: Case) -> Picture:
    """Each region filled with the mean colour of its reference."""
    return _colored(case, lambda region: _under_lines(region, _mean(region)))


def by_position(case: Case) -> Picture:
    """The mean colours of a reference's cells, stretched over its region."""
    return _colored(case, lambda region: _under_lines(region, _cells(region)))


def reinhard(case: Case) -> Picture:
    """Mean and deviation of each channel of L*a*b* as in the reference (Reinhard et al. 2001).

    A sketch without colour takes the mean of a* and b*, and lightnesses of the reference's range.
    """
    return _colored(case, _with_statistics)


def nearest_patch(case: Case) -> Picture:
    """Each patch of the region copies the colours of the reference's patch most like it in grey."""
    return _colored(case, lambda region: _under_lines(region, _copied(region)))


BASELINES: dict[str, Callable[[Case], Picture]] = {
    "grey": grey,
    "mean_color": mean_color,
    "by_position": by_position,
    "reinhard": reinhard,
    "nearest_patch": nearest_patch,
}
"""By the name that reports use."""


def _colored(case: Case, paint: Callable[[Region], Float[np.ndarray, "h w 3"]]) -> Picture:
    """The page with each region painted, in the order of the ids.

    Raises:
        ValueError: the case has no sketch masks, or an empty mask.
    """
    if len(case.sketch_masks) != len(case.references):
        raise ValueError(
            f"{case.path}: a baseline colours regions: expected a sketch mask for each of "
            f"{len(case.references)} references, got {len(case.sketch_masks)}; the release's "
            f"layout has none, use ours"
        )
    page = case.sketch.astype(np.float32)
    for index, given in enumerate(case.sketch_masks):
        box, mask = _cut(case, given, f"sketch mask {index + 1}")
        other, counts = _cut(case, case.reference_masks[index], f"reference mask {index + 1}")
        sketch = case.sketch[box].astype(np.float32)
        region = Region(sketch, mask, case.references[index][other].astype(np.float32), counts)
        page[box][mask] = paint(region)[mask]
    return np.clip(np.rint(page), 0, 255).astype(np.uint8)


def _cut(case: Case, given: np.ndarray, name: str) -> tuple[tuple[slice, slice], np.ndarray]:
    """Where a mask's box is, and the mask in it."""
    counts = given > MASK_MIDDLE
    box = mask_box(counts)
    if box is None:
        raise ValueError(
            f"{case.path}: {name} is empty; give it at least one pixel above {MASK_MIDDLE}"
        )
    top, left, bottom, right = box
    where = slice(top, bottom + 1), slice(left, right + 1)
    return where, counts[where]


def _under_lines(region: Region, colors: Float[np.ndarray, "*s 3"]) -> Float[np.ndarray, "h w 3"]:
    return region.sketch / WHITE * colors


def _mean(region: Region) -> Float[np.ndarray, "3"]:
    return region.reference[region.reference_mask].mean(axis=0)


def _cells(region: Region) -> Float[np.ndarray, "h w 3"]:
    """Means of what counts in each cell; a cell where nothing does has the mean of all."""
    counts = region.reference_mask.astype(np.float32)[..., None]
    weighted = np.concatenate([region.reference * counts, WHITE * counts], axis=2)
    rows, columns = (min(CELLS, side) for side in counts.shape[:2])
    cells = cv2.resize(weighted, (columns, rows), interpolation=cv2.INTER_AREA)
    share = cells[..., 3:] / WHITE
    colors = np.where(share > 0.01, cells[..., :3] / np.maximum(share, 0.01), _mean(region))
    height, width = region.mask.shape
    return cv2.resize(colors.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def _with_statistics(region: Region) -> Float[np.ndarray, "h w 3"]:
    """The sketch with the mean and the deviation of the reference's L*a*b*."""
    lab, other = _lab(region.sketch), _lab(region.reference)[region.reference_mask]
    own = lab[region.mask]
    scale = other.std(axis=0) / np.maximum(own.std(axis=0), 1e-3)
    moved = (lab - own.mean(axis=0)) * scale + other.mean(axis=0)
    moved[..., 0] = np.clip(moved[..., 0], 0, 100)
    return WHITE * np.clip(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1)


def _lab(pixels: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    return cv2.cvtColor(np.ascontiguousarray(pixels / np.float32(WHITE)), cv2.COLOR_RGB2LAB)


def _copied(region: Region) -> Float[np.ndarray, "h w 3"]:
    """Colours of the most alike patches, those that cover a pixel averaged."""
    own = _shrunk(region.sketch)
    ground = np.where(region.reference_mask[..., None], region.reference, _mean(region))
    other = _shrunk(ground.astype(np.float32))
    stride = PATCH // 2
    greys, theirs = _patches(_luminance(own), stride), _patches(_luminance(other), PATCH // 4)
    colors = _patches(other, PATCH // 4)
    rows, columns = greys.shape[:2]
    nearest = _nearest(greys.reshape(rows * columns, -1), theirs.reshape(-1, PATCH * PATCH))
    chosen = colors.reshape(-1, PATCH, PATCH, 3)[nearest].reshape(rows, columns, PATCH, PATCH, 3)
    total, count = np.zeros_like(own), np.zeros((*own.shape[:2], 1), np.float32)
    for row in range(rows):
        for column in range(columns):
            top, left = stride * row, stride * column
            total[top : top + PATCH, left : left + PATCH] += chosen[row, column]
            count[top : top + PATCH, left : left + PATCH] += 1
    filled = np.where(count > 0, total / np.maximum(count, 1), _mean(region))
    height, width = region.mask.shape
    return resize(filled.astype(np.float32), height, width)


def _shrunk(pixels: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "y x 3"]:
    """At most SIDE pixels long, at least a patch short."""
    scale = min(SIDE / max(pixels.shape[:2]), 1.0)
    height, width = (max(round(scale * side), PATCH) for side in pixels.shape[:2])
    return resize(pixels, height, width)


def _luminance(pixels: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _patches(values: Float[np.ndarray, "h w *c"], stride: int) -> np.ndarray:
    """All patches at a stride: [rows, columns, PATCH, PATCH, *c]."""
    views = np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH), axis=(0, 1))
    views = views[::stride, ::stride]
    return views if values.ndim == 2 else np.moveaxis(views, 2, -1)


def _nearest(
    own: Float[np.ndarray, "n p"], other: Float[np.ndarray, "m p"]
) -> Int[np.ndarray, "n"]:
    """Number of the nearest of `other` to each of `own`, means taken away: structure counts."""
    own = own - own.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    return np.argmin(np.square(other).sum(axis=1) - 2 * own @ other.T, axis=1)
