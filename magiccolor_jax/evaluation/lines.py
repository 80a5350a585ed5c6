"""Are the sketch's lines still there? Lines are extracted from the coloured page and compared."""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from magiccolor_jax.data.pictures import LIGHT
from magiccolor_jax.data.sketches import normalise_sketch
from magiccolor_jax.data.strokes import middles
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.lineart.xdog import NOMINAL_SIDE, xdog

REACH = 2.0
"""How far apart two lines may lie and count as one, in pixels of a page of 512 x 512."""


def line_fidelity(picture: Picture, sketch: Picture) -> float:
    """F1 of the lines that XDoG finds in a coloured page against the sketch's, 0..1.

    Precision is the share of the found lines' middles that lie near the sketch's ink, recall the
    share of the sketch's that lie near found ink; edges between colours cost precision. nan where
    the sketch has no line.
    """
    own, found = (_ink(lines) for lines in (normalise_sketch(sketch).lines, xdog(picture)))
    if not own.any():
        return math.nan
    reach = max(REACH * math.sqrt(own.size) / NOMINAL_SIDE, 1.0)
    precision = _share_near(found, own, reach)
    recall = _share_near(own, found, reach)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def _ink(lines: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    return lines < LIGHT


def _share_near(
    ink: Bool[np.ndarray, "H W"], other: Bool[np.ndarray, "H W"], reach: float
) -> float:
    """Share of the middles of one's lines that lie near the other's ink; 0 where there are none."""
    marks = middles(ink.astype(np.float32))
    return float((marks & (_distance_to(other) <= reach)).sum() / max(marks.sum(), 1))


def _distance_to(ink: Bool[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Of each pixel to the nearest ink, in pixels; far where there is none."""
    if not ink.any():
        return np.full(ink.shape, np.inf, np.float32)
    return cv2.distanceTransform((~ink).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
