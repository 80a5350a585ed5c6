"""Width of a drawing's lines: measured, and changed without losing, breaking or joining any.

Ink is [H W], 0 paper .. 1 black; a width is in pixels of that array.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Ink = Float32[np.ndarray, "H W"]
Marks = UInt8[np.ndarray, "H W"]
"""0 or 1."""

INKED, FAINT = 0.2, 0.05
"""Least ink of a line whose width counts, and of one that may not be lost."""

WIDEST = 15
"""What is wider is a black area, not a line."""

NEAR = 17
"""Side of the window in which a line's width is measured."""

_AROUND = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)
"""Bit of each neighbour in a pixel's code, clockwise from above."""

_SOFT = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
"""Makes a line of one pixel 1.5 pixels wide, with soft edges."""


def middles(ink: Ink) -> Marks:
    """One pixel in the middle of each line; of black areas a core is left.

    What is little ink beside much is no line: a grey between two lines does not join them.
    """
    darkest = cv2.dilate(ink, np.ones((5, 5), np.uint8))
    return _thinned((ink >= np.maximum(darkest / 2, INKED)).astype(np.uint8))


def line_width(ink: Ink, middle: Marks) -> float:
    """Median over the lines of their ink per length; 0 where there is none.

    That is their width where they are black, within a quarter at any angle. Black areas do not
    count.

    Args:
        middle: the `middles` of `ink`.
    """
    areas = cv2.morphologyEx((ink >= INKED).astype(np.uint8), cv2.MORPH_OPEN, _disc(WIDEST))
    lines = 1 - cv2.dilate(areas, _disc(3))
    middle = middle * lines
    on = middle > 0
    if not on.any():
        return 0.0
    lengths = cv2.LUT(_neighbours(middle), _LENGTHS) * middle
    return float(np.median(_summed(ink * lines)[on] / _summed(lengths)[on]))


def thicken(ink: Ink, radius: float) -> Ink:
    """Lines `radius` pixels thicker on either side, save where that would close a narrow gap."""
    thick = _between(cv2.dilate, ink, radius)
    narrow = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, _disc(2 * int(np.ceil(radius)) + 3)) - ink
    return ink + (thick - ink) * (1 - narrow)


def thin(ink: Ink, radius: float, middle: Marks) -> Ink:
    """Lines `radius` pixels thinner on either side; a line's middle and black areas remain.

    An area is black where a disc finds room that is half as wide again as lines which become
    1.5 pixels wide.

    Args:
        middle: the `middles` of `ink`.
    """
    thinner = _between(cv2.erode, ink, radius)
    areas = cv2.morphologyEx(ink, cv2.MORPH_OPEN, _disc(int(4 + 6 * radius) | 1))
    middle = middle | _thinned((ink >= FAINT).astype(np.uint8))  # joins faint lines to bold
    soft = np.minimum(cv2.filter2D(middle, cv2.CV_32F, _SOFT), ink)
    # A soft line's middle may stand beside its darkest pixel, and would be fainter than the line.
    kept = np.maximum(soft, middle * cv2.dilate(ink, _disc(3)))
    return np.maximum(np.maximum(thinner, areas), kept)


def _between(change: Callable, ink: Ink, radius: float) -> Ink:
    """`change` by discs, mixed to a radius between two whole numbers of pixels."""
    whole = int(radius)
    less, more = (change(ink, _disc(2 * r + 1)) for r in (whole, whole + 1))
    return cv2.addWeighted(less, 1 - (radius - whole), more, radius - whole, 0)


def _thinned(marks: Marks) -> Marks:
    """Peeled off from all sides as long as nothing breaks, like Zhang and Suen 1984.

    With 3 in place of their 2 neighbours (Lü and Wang 1986): theirs eats slanted lines of two
    pixels from the end.
    """
    left = cv2.countNonZero(marks)
    for _ in range(WIDEST // 2 + 1):
        for stays in _STAYS:
            marks = marks & cv2.LUT(_neighbours(marks), stays)
        before, left = left, cv2.countNonZero(marks)
        if left == before:
            break
    return marks


def _disc(side: int) -> UInt8[np.ndarray, "S S"]:
    """A disc of a diameter, as OpenCV's morphology takes it."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _summed(values: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Sums over the window around each pixel."""
    return cv2.boxFilter(values, -1, (NEAR, NEAR), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _neighbours(marks: Marks) -> UInt8[np.ndarray, "H W"]:
    """Which of each pixel's eight neighbours are marked, as bits."""
    return cv2.filter2D(marks, cv2.CV_8U, _AROUND, borderType=cv2.BORDER_CONSTANT)


def _tables() -> tuple[UInt8[np.ndarray, "2 256"], Float32[np.ndarray, "256"]]:
    """By a pixel's neighbours: whether it stays in either half step, and its length of line."""
    stays, lengths = np.ones((2, 256), np.uint8), np.ones(256, np.float32)
    for bits in range(256):
        ring = [bits >> place & 1 for place in range(8)]
        up, _, right, _, down, _, left, _ = ring
        starts = sum(not ring[i - 1] and ring[i] for i in range(8))
        if 3 <= sum(ring) <= 6 and starts == 1:
            stays[0, bits] = (up and right and down) or (right and down and left)
            stays[1, bits] = (up and right and left) or (up and down and left)
        # Half the way to each neighbour; one at a corner is reached over one at a side if it can.
        corners = sum(ring[i] and not ring[i - 1] and not ring[(i + 1) % 8] for i in (1, 3, 5, 7))
        lengths[bits] = max(1, (sum(ring[::2]) + 2**0.5 * corners) / 2)
    return stays, lengths


_STAYS, _LENGTHS = _tables()
