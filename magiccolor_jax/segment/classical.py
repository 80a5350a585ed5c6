"""Instances of flat artwork without a network: by transparency, by the ground, or by colour.

A drawing on transparency or on a plain ground is cut out exactly. Objects that touch are one; a
picture without a ground falls into its flat areas, which are parts rather than objects.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from magiccolor_jax.segment.objects import Region

Picture = UInt8[np.ndarray, "H W 3"]

SEEN = 127
"""A pixel whose alpha is above is there."""

LEAST_CLEAR = 0.02
"""Share of transparent pixels from which on the alpha channel cuts out, and does not just soften
corners."""

PLAIN = 0.6
"""Share of the picture's rim that looks alike where there is a plain ground."""

ALIKE = 20
"""Levels of a channel within which a colour is the ground's: paper has grain, and JPEG noise."""

GAP = 256
"""Lines' gaps up to a 256th of the longer side do not let the ground in."""

COLORS = 8
"""Colours of a picture that has no ground."""

WORKING = 512
"""Longest side, in pixels, at which these are found."""


MOST = 64
"""Parts that are kept, the largest; a photograph has thousands."""


class Found(NamedTuple):
    """Masks, and by what they were found."""

    masks: list[Region]
    how: str
    """For the user, who should know that no network looked."""
    ground: bool
    """Whether the picture's ground may be among them."""


def flat_masks(picture: Picture, alpha: UInt8[np.ndarray, "H W"] | None) -> Found:
    """The parts of a picture that hang together, in no order.

    Args:
        alpha: of the picture, where it has one.
    """
    if alpha is not None and (alpha <= SEEN).mean() >= LEAST_CLEAR and (alpha > SEEN).any():
        return Found(_parts(alpha > SEEN), "the alpha channel", False)
    ground = _ground(picture)
    if ground is not None:
        return Found(_parts(~ground), "the plain ground", False)
    how = "flat colours (no plain ground: these are parts, not objects)"
    return Found(_areas(picture), how, True)


def _ground(picture: Picture) -> Bool[np.ndarray, "H W"] | None:
    """What is paper and reaches the rim, past lines with small gaps; None without a plain rim."""
    rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    paper = np.median(rim, axis=0)
    if (np.abs(rim - paper).max(axis=1) <= ALIKE).mean() < PLAIN:
        return None
    alike = np.abs(picture.astype(np.int16) - paper.astype(np.int16)).max(axis=2) <= ALIKE
    reach = max(max(alike.shape) // GAP, 1)
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # As a ball of that size would get in: through no gap that is narrower.
    open_paper = cv2.erode(alike.astype(np.uint8), window, borderValue=1)
    framed = np.pad(open_paper, 1, constant_values=1)
    _, labels = cv2.connectedComponents(framed, connectivity=4)
    outside = (labels == labels[0, 0])[1:-1, 1:-1]
    return (cv2.dilate(outside.astype(np.uint8), window) > 0) & alike


def _parts(shown: Bool[np.ndarray, "H W"]) -> list[Region]:
    """The connected parts."""
    count, labels = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    return _regions(labels, range(1, count))


def _regions(labels: Int[np.ndarray, "H W"], numbers: range) -> list[Region]:
    """Masks of labels, the largest ones, without the crumbs that no instance can be."""
    sizes = np.bincount(labels.ravel(), minlength=numbers.stop)[: numbers.stop]
    sizes[: numbers.start] = 0
    largest = np.argsort(-sizes, kind="stable")[:MOST]
    return [labels == number for number in largest if sizes[number] >= labels.size * 1e-4]


def _areas(picture: Picture) -> list[Region]:
    """Connected areas of one colour, at the picture's size."""
    height, width = picture.shape[:2]
    scale = min(1.0, WORKING / max(height, width))
    size = tuple(max(round(side * scale), 1) for side in (width, height))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.medianBlur(small, 5), cv2.COLOR_RGB2LAB).reshape(-1, 3)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    count = min(COLORS, len(np.unique(lab, axis=0)))
    cv2.setRNGSeed(0)
    _, colors, _ = cv2.kmeans(
        lab.astype(np.float32), count, np.empty(0), criteria, 1, cv2.KMEANS_PP_CENTERS
    )
    colors = colors.reshape(small.shape[:2])
    parts = [part for color in range(count) for part in _parts(colors == color)]
    parts = sorted(parts, key=lambda part: -int(part.sum()))[:MOST]
    enlarged = (
        cv2.resize(part.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        for part in parts
    )
    return [part > 0 for part in enlarged]
