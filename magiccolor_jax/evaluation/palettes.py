"""Do the colours of a region come from its own reference?

Colours of a region are summed up by k-means. Two distances of such palettes: in Oklab to the
nearest colour (what `leakage` tells), and CIEDE2000 of the cheapest way to turn one into the other,
which counts how much there is of each colour too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from scipy.optimize import linprog

from magiccolor_jax.data.cases import owned
from magiccolor_jax.data.palette import srgb_to_oklab
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.evaluation.ciede2000 import ciede2000, srgb_to_lab
from magiccolor_jax.evaluation.regions import Region, counted, marked
from magiccolor_jax.types import Case

COLORS = 12
"""Colours of a palette."""

DOMINANT = 8
"""Colours of a palette of dominant colours."""

SAMPLE = 4000
"""Most pixels that a palette is made from."""

Pixels = UInt8[np.ndarray, "n 3"]


class Palette(NamedTuple):
    """The colours of a region."""

    colors: Float[np.ndarray, "k 3"]
    """Of one colour space."""
    shares: Float[np.ndarray, "k"]
    """Of the region's pixels; they add up to 1."""


def palette_of(pixels: Pixels) -> Palette:
    """A region's colours in Oklab; the same pixels give the same palette."""
    return _clustered(srgb_to_oklab(_sampled(pixels)), COLORS)


def dominant_colors(pixels: Pixels) -> Palette:
    """A region's colours in CIE L*a*b*; the same pixels give the same palette."""
    sample = _sampled(pixels)
    lab = _to_lab(_padded(sample, SAMPLE) / np.float32(255))
    return _clustered(np.asarray(lab)[: len(sample)], DOMINANT)


def distance(palette: Palette, other: Palette) -> float:
    """How far the colours of a palette are from the nearest of the other, by their shares.

    In hundredths of Oklab's units: 2 is just noticeable.
    """
    gaps = np.linalg.norm(palette.colors[:, None] - other.colors[None], axis=-1)
    return 100 * float(palette.shares @ gaps.min(axis=1))


def transport(palette: Palette, other: Palette) -> float:
    """CIEDE2000 that a pixel moves by when one palette becomes the other as cheaply as can be.

    The earth mover's distance (Rubner, Tomasi and Guibas 2000); palettes of dominant colours.
    """
    rows, columns = len(palette.shares), len(other.shares)
    costs = np.asarray(_differences(*(_padded(p.colors, DOMINANT) for p in (palette, other))))
    leaving = np.kron(np.eye(rows), np.ones(columns))
    arriving = np.kron(np.ones(rows), np.eye(columns))
    # One of the equations follows from the others; shares that do not quite add up would clash.
    found = linprog(
        costs[:rows, :columns].ravel(),
        A_eq=np.concatenate([leaving, arriving[:-1]]),
        b_eq=np.concatenate([palette.shares, other.shares[:-1]]),
    )
    return float(found.fun)


def leakage(
    picture: Picture, case: Case, references: Sequence[int] | None = None
) -> Float[np.ndarray, "K K"]:
    """[i, j]: distance of region i of a coloured page from reference j; see `distances_of`.

    Args:
        references: number of the reference that each region was given; default its own.

    Raises:
        ValueError: the case has no sketch masks, or a mask marks nothing.
    """
    order = range(len(case.references)) if references is None else references
    palettes = reference_palettes(case)
    return distances_of(picture, owned(marked(case)), [palettes[j] for j in order])


def reference_palettes(case: Case) -> list[Palette]:
    """Of what counts of each reference.

    Raises:
        ValueError: a mask marks nothing.
    """
    pairs = zip(case.references, case.reference_masks, strict=True)
    return [
        palette_of(picture[counted(case, mask, f"reference mask {number}")])
        for number, (picture, mask) in enumerate(pairs, 1)
    ]


def distances_of(
    picture: Picture, regions: Sequence[Region], palettes: Sequence[Palette]
) -> Float[np.ndarray, "K N"]:
    """[i, j]: distance of region i from palette j; nan where the region is empty."""
    nowhere = [np.nan] * len(palettes)
    rows = [
        [distance(ours, theirs) for theirs in palettes] if ours is not None else nowhere
        for ours in (palette_of(picture[inner(r)]) if r.any() else None for r in regions)
    ]
    return np.array(rows)


def own_closest(distances: Float[np.ndarray, "K K"]) -> Bool[np.ndarray, "K"]:
    """Whether each region is nearer to its own reference (the diagonal) than to any other."""
    others = distances + np.diag(np.full(len(distances), np.inf))
    return np.diag(distances) < others.min(axis=1)


def follows(distances: Float[np.ndarray, "K K"]) -> Bool[np.ndarray, "2"]:
    """Whether the first two regions, whose references changed places, took the new colours: each
    is nearer to the reference that it was given than to the other of the two.

    Args:
        distances: of the page that was coloured so; column i is what region i was given.
    """
    pair = distances[:2, :2]
    return np.diag(pair) < pair[[0, 1], [1, 0]]


def oklab_error(picture: Picture, truth: Picture, mask: Bool[np.ndarray, "H W"]) -> float:
    """Mean distance from the truth inside a region, in hundredths of Oklab's units."""
    counts = inner(mask)
    gaps = srgb_to_oklab(picture[counts]) - srgb_to_oklab(truth[counts])
    return 100 * float(np.linalg.norm(gaps, axis=-1).mean())


def inner(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """A region without its outermost pixels, which are mixed with what is around it."""
    eroded = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return eroded if eroded.any() else mask


def _sampled(pixels: Pixels) -> UInt8[np.ndarray, "m 3"]:
    if len(pixels) <= SAMPLE:
        return pixels
    return pixels[np.random.default_rng(0).choice(len(pixels), SAMPLE, replace=False)]


def _clustered(colors: Float[np.ndarray, "n 3"], most: int) -> Palette:
    cv2.setRNGSeed(0)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-4)
    count = min(most, len(colors))
    none = np.empty(0, np.int32)
    _, labels, centres = cv2.kmeans(colors, count, none, until, 1, cv2.KMEANS_PP_CENTERS)
    return Palette(centres, np.bincount(labels.ravel(), minlength=count) / len(colors))


def _padded(colors: Shaped[np.ndarray, "k 3"], count: int) -> Shaped[np.ndarray, "{count} 3"]:
    """Always as many, so that one program serves all regions."""
    return np.pad(colors, ((0, count - len(colors)), (0, 0)))


_to_lab = jax.jit(srgb_to_lab)


@jax.jit
def _differences(
    colors: Float[jax.Array, "k 3"], other: Float[jax.Array, "l 3"]
) -> Float[jax.Array, "k l"]:
    return ciede2000(*jnp.broadcast_arrays(colors[:, None], other[None]))
