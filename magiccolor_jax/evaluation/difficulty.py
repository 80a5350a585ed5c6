"""What makes a page hard: how many instances there are, and how they lie against each other."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from magiccolor_jax.data.transforms import mask_box
from magiccolor_jax.evaluation.regions import Region

TOUCH = 0.005
"""How near an outline touches another instance, as a share of the page's longer side; at least two
pixels."""


class Difficulty(NamedTuple):
    """Of one page."""

    instances: int
    overlap: float
    """Mean share of an instance's box that boxes of others cover, 0..1."""
    occlusion: float
    """Largest share of an instance's outline that lies on, under or against another, 0..1."""


def difficulty_of(regions: Sequence[Region]) -> Difficulty:
    """Of what the sketch masks mark, none of it empty."""
    boxes = [_boxed(region) for region in regions]
    reach = 2 * max(2, round(TOUCH * max(regions[0].shape))) + 1
    shares, touched = [0.0], [0.0]
    for index, region in enumerate(regions):
        others = [i for i in range(len(regions)) if i != index]
        if not others:
            continue
        covered = np.logical_or.reduce([boxes[i] for i in others])
        shares.append(float(covered[boxes[index]].mean()))
        beside = np.logical_or.reduce([regions[i] for i in others]).astype(np.uint8)
        near = cv2.dilate(beside, np.ones((reach, reach), np.uint8)) > 0
        touched.append(float(near[_outline(region)].mean()))
    return Difficulty(len(regions), float(np.mean(shares[1:] or shares)), max(touched))


def _boxed(region: Region) -> Region:
    """The box around a region, as a region."""
    box = mask_box(region)
    assert box is not None, "checked by the reader of cases"
    filled = np.zeros_like(region)
    filled[box[0] : box[2] + 1, box[1] : box[3] + 1] = True
    return filled


def _outline(region: Region) -> Region:
    """A region's pixels that have a neighbour outside of it, or none beyond the picture."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return region & (cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0)
