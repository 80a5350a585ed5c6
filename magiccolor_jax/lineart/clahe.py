"""Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994), equal to
`kornia.enhance.equalize_clahe`, which Anime2Sketch and MagicColor's training use.

kornia 0.9 computes something else than the versions before it, with which both were published:

|                                | up to 0.8                        | from 0.9                   |
|--------------------------------|----------------------------------|----------------------------|
| sides of a tile                | even                             | what covers the picture    |
| a pixel's bin in the histogram | of 256 equal ones                | its level, truncated       |
| what is cut off and left over  | to the darkest bins              | to bins at equal distances |
| a curve's values               | truncated                        | rounded                    |
| weights between tiles' middles | 1 to 0, from first to last pixel | by distance                |

OpenCV's is neither.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

GRID = 8
"""Tiles along each side."""

BINS = 256
"""Levels of a tile's histogram, and of its curve."""

Version = Literal["0.8", "0.9"]
"""Of kornia: up to 0.8, or from 0.9 on."""


def clahe(
    pixels: Float32[np.ndarray, "H W C"],
    limit: float,
    grid: int = GRID,
    version: Version = "0.8",
) -> Float32[np.ndarray, "H W C"]:
    """Evens out the contrast, each channel by itself.

    Args:
        pixels: in [0, 1].
        limit: how steep a tile's curve may become, over that of no change; 0: any.
        grid: tiles along each side.
        version: which of kornia's two ways.

    Returns:
        In [0, 1], in steps of 1/255 where a single tile decides.

    Raises:
        ValueError: `limit` or `grid` is none; a side is too short to be mirrored into whole tiles.
    """
    if not (limit >= 0 and math.isfinite(limit)) or grid < 1:
        raise ValueError(
            f"CLAHE: expected a finite limit of at least 0 and a grid of at least 1, got {limit} "
            f"and {grid}"
        )
    height, width, channels = pixels.shape
    rows, columns = (_tile(side, grid, version) for side in (height, width))
    missing = ((0, rows * grid - height), (0, columns * grid - width), (0, 0))
    padded = np.pad(pixels, missing, mode="reflect")
    tiles = padded.reshape(grid, rows, grid, columns, channels).transpose(0, 2, 4, 1, 3)
    curves = _curves(tiles.reshape(grid * grid * channels, rows * columns), limit, version)
    curves = curves.reshape(grid, grid, channels, BINS)
    levels = _levels(pixels)
    down, across = _blend(height, rows, grid, version), _blend(width, columns, grid, version)

    def curved(row: Int[np.ndarray, "H"], column: Int[np.ndarray, "W"]) -> np.ndarray:
        return curves[row[:, None, None], column[:, None], np.arange(channels), levels]

    def beside(row: Int[np.ndarray, "H"]) -> np.ndarray:
        left, right = curved(row, across.before), curved(row, across.after)
        return right + across.weight[:, None] * (left - right)

    above, below = beside(down.before), beside(down.after)
    return (below + down.weight[:, None, None] * (above - below)) / np.float32(BINS - 1)


def _levels(pixels: Float32[np.ndarray, "*S"]) -> Int[np.ndarray, "*S"]:
    """Where a curve is read: 0..255, truncated."""
    return (pixels * np.float32(BINS - 1)).astype(int)


def _tile(side: int, grid: int, version: Version) -> int:
    """Side of a tile, such that the grid covers the picture.

    Raises:
        ValueError: what is missing in the last tiles is more than can be mirrored.
    """
    tile = math.ceil(side / grid)
    tile += tile % 2 if version == "0.8" else 0
    if side <= grid or tile * grid - side >= side:
        raise ValueError(
            f"CLAHE: {grid} tiles must cover a side of the picture, have more than a pixel, and "
            f"go on for less than the side: expected a longer side, got {side} pixels"
        )
    return tile


def _curves(
    tiles: Float32[np.ndarray, "T P"], limit: float, version: Version
) -> Float32[np.ndarray, "T 256"]:
    """The curve of each tile, 0..255: its histogram, cut off, what is cut off shared out, summed.

    Args:
        tiles: pixels in [0, 1].
    """
    count, size = tiles.shape
    equal = np.minimum((tiles * np.float32(BINS)).astype(int), BINS - 1)
    bins = equal if version == "0.8" else _levels(tiles)
    places = bins + BINS * np.arange(count)[:, None]
    histograms = np.bincount(places.ravel(), minlength=count * BINS).reshape(count, BINS)
    if limit > 0:
        histograms = np.minimum(histograms, max(int(limit * size // BINS), 1))
        share, rest = np.divmod(size - histograms.sum(1, keepdims=True), BINS)
        histograms = histograms + share + _spread(rest, version)
    scale = np.float32((BINS - 1) / size)
    curves = np.clip(histograms.cumsum(1).astype(np.float32) * scale, 0, BINS - 1)
    return np.floor(curves) if version == "0.8" else np.rint(curves)


def _spread(rest: Int[np.ndarray, "T 1"], version: Version) -> Bool[np.ndarray, "T 256"]:
    """The bins that get one of the rest, which is less than there are bins."""
    bins = np.arange(BINS)
    if version == "0.8":
        return bins < rest
    step = np.maximum(BINS // np.maximum(rest, 1), 1)
    return (bins % step == 0) & (bins // step < rest)


class Blend(NamedTuple):
    """Along a side, which two tiles decide about each pixel."""

    before: Int[np.ndarray, "L"]
    after: Int[np.ndarray, "L"]
    """The same as `before` outside of the first and the last tile's middle."""
    weight: Float32[np.ndarray, "L"]
    """Of the tile before, 1 to 0."""


def _blend(side: int, tile: int, grid: int, version: Version) -> Blend:
    pixel = np.arange(side)
    if version == "0.8":
        half = tile // 2
        piece, place = np.divmod(pixel + half, tile)  # from one tile's middle to the next
        first, steps = piece - 1, np.float32(tile - 1)
        weight = (steps - place.astype(np.float32)) / steps
    else:
        middle = (pixel.astype(np.float32) - np.float32((tile - 1) / 2)) / np.float32(tile)
        first = np.floor(middle).astype(int)
        weight = 1 - (middle - np.floor(middle))
    before, after = (np.clip(first + step, 0, grid - 1) for step in (0, 1))
    return Blend(before, after, weight)
