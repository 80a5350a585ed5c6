"""Do the colours of a region come from its own reference? Distances between palettes in Oklab."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from magiccolor_jax.data.palette import srgb_to_oklab
from magiccolor_jax.types import Case

COLOURS = 12
"""Colours of a palette."""

SAMPLE = 4000
"""Most pixels that a palette is made from."""

COUNTS = 127
"""A mask's pixel counts above this."""


class Palette(NamedTuple):
    """The colours of a region."""

    colors: Float[np.ndarray, "k 3"]
    """Oklab."""
    shares: Float[np.ndarray, "k"]
    """Of the region's pixels; they add up to 1."""


def palette_of(pixels: UInt8[np.ndarray, "n 3"]) -> Palette:
    """k-means of a region's colours; the same pixels give the same palette."""
    lab = srgb_to_oklab(pixels)
    if len(lab) > SAMPLE:
        lab = lab[np.random.default_rng(0).choice(len(lab), SAMPLE, replace=False)]
    cv2.setRNGSeed(0)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-4)
    count = min(COLOURS, len(lab))
    none = np.empty(0, np.int32)
    _, labels, centres = cv2.kmeans(lab, count, none, until, 1, cv2.KMEANS_PP_CENTERS)
    return Palette(centres, np.bincount(labels.ravel(), minlength=count) / len(lab))


def distance(palette: Palette, other: Palette) -> float:
    """How far the colours of a palette are from the nearest of the other, by their shares.

    In hundredths of Oklab's units: 2 is just noticeable.
    """
    gaps = np.linalg.norm(palette.colors[:, None] - other.colors[None], axis=-1)
    return 100 * float(palette.shares @ gaps.min(axis=1))


def own_distances(
    picture: UInt8[np.ndarray, "H W 3"], case: Case, references: Sequence[int] | None = None
) -> Float[np.ndarray, "K K"]:
    """[i, j]: distance of region i of a coloured page from reference j.

    Args:
        references: number of the reference that each region was given; default its own.
    """
    order = range(len(case.references)) if references is None else references
    theirs = [palette_of(case.references[j][case.reference_masks[j] > COUNTS]) for j in order]
    ours = [palette_of(picture[_inner(mask > COUNTS)]) for mask in case.sketch_masks]
    return np.array([[distance(a, b) for b in theirs] for a in ours])


def own_closest(distances: Float[np.ndarray, "K K"]) -> Bool[np.ndarray, "K"]:
    """Whether each region is nearer to its own reference (the diagonal) than to any other."""
    others = distances + np.diag(np.full(len(distances), np.inf))
    return np.diag(distances) < others.min(axis=1)


def psnr(picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> float:
    """Peak signal-to-noise ratio in decibels over all pixels and channels."""
    error = np.mean(np.square(picture.astype(np.float64) - truth))
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def _inner(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """A region without its outermost pixels, which are mixed with what is around it."""
    eroded = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return eroded if eroded.any() else mask
