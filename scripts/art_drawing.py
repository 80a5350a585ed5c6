"""Groups of drawings: palette, index pictures, line art; and which are any good.

A drawing is scaled so that its longer side fills the picture but for a margin. The drawings of a
group share a palette; where they have more colours than it holds, similar ones become one.
"""

from typing import NamedTuple

import cv2
import numpy as np
from art_svg import Drawing, DrawingError, Frame, framed, line_art, read_svg, render
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

MARGIN = 4
"""White around a drawing, in pixels: an outline stands half outside."""

LINE_WIDTH, LEAST_WIDTH = 1.6 / 256, 1.2
"""Of an outline: as a share of the picture's side, and in pixels; a thinner one is never black."""

FIRST_SIDE, FIRST_ALPHA = 192, 40
"""Longer side and least alpha of the rendering in which a drawing is looked for."""

COLORS = 63
"""Most colours of a group: a palette's entry 0 is transparent."""

OPAQUE = 128
"""Least alpha, 0..255, of a pixel that is part of a drawing."""

FEWEST_PIXELS, SMALLEST = 100, 0.18
"""Of the first rendering: painted pixels; the drawing's longer side as a share of the canvas'."""

FILLED = (0.18, 0.93)
"""Range of the share of its box that a drawing fills."""

ASPECT = 3.0
"""Largest ratio of a box's sides."""

COLORFUL, COLORFUL_SHARE = 40, 0.2
"""Range of the channels over which a colour is no grey; least share of such pixels."""

MAIN_SHARE, MAIN_COLORS = 0.02, 2
"""Share from which a colour counts; least number of these."""

INKED = (0.01, 0.5)
"""Range of the share of a drawing that its lines cover."""

LARGEST_PART = 0.6
"""Least share of its largest connected part."""

LINED, REACH = 0.6, 5
"""Least share of the silhouette's edge along which there is a line; side in pixels of the square
around a pixel in which it is looked for."""


class Group(NamedTuple):
    """Drawings of one subject."""

    palette: UInt8[np.ndarray, "64 3"]
    indices: UInt8[np.ndarray, "n R R"]
    lines: UInt8[np.ndarray, "n R R"]
    """0 is ink."""
    measures: dict[str, float | int]
    """Of the first drawing: what `measure` finds, and the palette's `ncolors`."""


class _Pair(NamedTuple):
    """A drawing in colour and in lines."""

    color: UInt8[np.ndarray, "R R 4"]
    lines: UInt8[np.ndarray, "R R"]


def draw_group(files: tuple[bytes, ...], side: int) -> Group:
    """Draws a subject.

    Args:
        files: SVG.
        side: of the pictures, in pixels.

    Raises:
        DrawingError: one of its drawings is no good.
    """
    try:
        pairs = [_draw(read_svg(data), side) for data in files]
    except RecursionError:
        raise DrawingError("too deep") from None
    palette, indices = shared_palette(np.stack([pair.color for pair in pairs]))
    lines = np.stack([pair.lines for pair in pairs])
    found = [measure(*each, palette) for each in zip(indices, lines, strict=True)]
    problems = (problem(*each) for each in zip(found, indices, lines, strict=True))
    if first := next(filter(None, problems), None):
        raise DrawingError(first)
    used = int(indices.max())
    return Group(palette, indices, lines, found[0] | {"ncolors": used})


def _draw(drawing: Drawing, side: int) -> _Pair:
    frame = _fit(drawing, side)
    document = framed(drawing, frame, side)
    color = render(document, crisp=True)
    drawn = line_art(document, side / frame.width, max(LINE_WIDTH * side, LEAST_WIDTH))
    lines = render(drawn, crisp=False).astype(np.float32)
    # Black and white on white paper: one channel tells all.
    shown = 255 - lines[..., 3] * (1 - lines[..., 0] / 255)
    return _Pair(color, np.rint(shown).astype(np.uint8))


def _fit(drawing: Drawing, side: int) -> Frame:
    """The square in whose middle the drawing stands, found in two steps."""
    canvas = drawing.canvas
    longer = max(canvas.width, canvas.height)
    if longer > 5 * min(canvas.width, canvas.height):
        raise DrawingError("aspect")
    around = Frame(
        canvas.left + (canvas.width - longer) / 2,
        canvas.top + (canvas.height - longer) / 2,
        longer,
        longer,
    )
    first = render(framed(drawing, around, FIRST_SIDE), crisp=False)[..., 3]
    if (first > FIRST_ALPHA).sum() < FEWEST_PIXELS:
        raise DrawingError("empty")
    near = _square(first > FIRST_ALPHA, around, 2)
    if near.width < SMALLEST * longer:
        raise DrawingError("small")
    second = render(framed(drawing, near, side), crisp=True)[..., 3]
    if not (second >= OPAQUE).any():
        raise DrawingError("empty")
    exact = _square(second >= OPAQUE, near, 0)
    grown = exact.width * side / (side - 2 * MARGIN)
    rim = (grown - exact.width) / 2
    return Frame(exact.left - rim, exact.top - rim, grown, grown)


def _square(painted: Bool[np.ndarray, "S S"], frame: Frame, rim: int) -> Frame:
    """The smallest square around what is painted in a frame, and `rim` pixels."""
    rows, columns = _box(painted)
    unit = frame.width / len(painted)
    length = max(rows.stop - rows.start, columns.stop - columns.start) + 2 * rim
    left = frame.left + unit * (columns.start + columns.stop - length) / 2
    top = frame.top + unit * (rows.start + rows.stop - length) / 2
    return Frame(*map(float, (left, top, unit * length, unit * length)))


def _box(painted: Bool[np.ndarray, "S S"]) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def shared_palette(
    pictures: UInt8[np.ndarray, "n R R 4"],
) -> tuple[UInt8[np.ndarray, "64 3"], UInt8[np.ndarray, "n R R"]]:
    """Palette of the pictures on white, entry 0 unused, and each pixel's entry.

    Raises:
        DrawingError: nothing is painted in one of them.
    """
    painted = pictures[..., 3] >= OPAQUE
    if not painted.any(axis=(1, 2)).all():
        raise DrawingError("empty")
    alpha = pictures[painted][:, 3:].astype(np.float32) / 255
    pixels = np.rint(pictures[painted][:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    # One number a colour: rows are sorted ten times slower.
    numbers, entries = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    colors = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1)
    if len(colors) > COLORS:
        colors, entries = _quantised(pixels)
    palette = np.zeros((COLORS + 1, 3), np.uint8)
    palette[1 : len(colors) + 1] = colors
    indices = np.zeros(painted.shape, np.uint8)
    indices[painted] = entries.ravel() + 1
    return palette, indices


def _quantised(
    pixels: UInt8[np.ndarray, "p 3"],
) -> tuple[UInt8[np.ndarray, "c 3"], Int[np.ndarray, "p"]]:
    """At most as many colours as a palette holds, and each pixel's."""
    picture = Image.fromarray(pixels[None]).quantize(
        COLORS, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE
    )
    table = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    used, entries = np.unique(np.asarray(picture)[0], return_inverse=True)
    return table[used], entries


def measure(
    indices: UInt8[np.ndarray, "R R"],
    lines: UInt8[np.ndarray, "R R"],
    palette: UInt8[np.ndarray, "64 3"],
) -> dict[str, float | int]:
    """What a drawing is like.

    Returns:
        `fill`, share of its box; `asp`, width over height of the box; `chr`, share of colourful
        pixels; `ncol`, number of main colours; `ink`, share under lines.
    """
    painted = indices > 0
    rows, columns = _box(painted)
    shares = color_shares(indices)
    ranges = np.ptp(palette.astype(int), axis=1)
    return {
        "fill": float(painted[rows, columns].mean()),
        "asp": (columns.stop - columns.start) / (rows.stop - rows.start),
        "chr": float(shares[ranges > COLORFUL].sum()),
        "ncol": int((shares > MAIN_SHARE).sum()),
        "ink": float((lines[painted] < 128).mean()),
    }


def color_shares(indices: UInt8[np.ndarray, "*s"]) -> Float[np.ndarray, "64"]:
    """Share of the painted pixels that each entry of the palette has."""
    counts = np.bincount(indices.ravel(), minlength=COLORS + 1).astype(np.float64)
    counts[0] = 0
    return counts / counts.sum()


def problem(
    measures: dict[str, float | int],
    indices: UInt8[np.ndarray, "R R"],
    lines: UInt8[np.ndarray, "R R"],
) -> str | None:
    """Why a drawing with these measures is no good; None: it is."""
    painted = (indices > 0).astype(np.uint8)
    checks = {
        "a full rectangle": measures["fill"] > FILLED[1],
        "thin": measures["fill"] < FILLED[0],
        "aspect": not 1 / ASPECT < measures["asp"] < ASPECT,
        "grey": measures["chr"] < COLORFUL_SHARE,
        "one colour": measures["ncol"] < MAIN_COLORS,
        "no lines": measures["ink"] <= INKED[0],
        "ink all over": measures["ink"] >= INKED[1],
        "scattered": _largest_part(painted) < LARGEST_PART,
        "edges without lines": _lined(painted, lines) < LINED,
    }
    return next((reason for reason, failed in checks.items() if failed), None)


def _largest_part(painted: UInt8[np.ndarray, "R R"]) -> float:
    _, _, parts, _ = cv2.connectedComponentsWithStats(painted)
    return float(parts[1:, cv2.CC_STAT_AREA].max() / painted.sum())


def _lined(painted: UInt8[np.ndarray, "R R"], lines: UInt8[np.ndarray, "R R"]) -> float:
    """Share of the silhouette's edge that has a line."""
    edge = (painted > 0) & (cv2.erode(painted, np.ones((3, 3), np.uint8)) == 0)
    near = cv2.dilate((lines < 128).astype(np.uint8), np.ones((REACH, REACH), np.uint8)) > 0
    return float(near[edge].mean())
