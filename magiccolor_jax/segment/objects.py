"""From masks to instances: small ones left out, parts joined to their whole, the order of ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from magiccolor_jax.segment.automatic import without_small

Region = Bool[np.ndarray, "H W"]

BACKGROUND = 0.9
"""A mask of so large a share of the picture is its ground."""

INSIDE = 0.85
"""Share of a mask that lies in a larger one, from which on it is a part of it."""


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """Which masks become instances."""

    min_area: float = 0.002
    """Least share of the picture."""
    max_count: int = 16
    """Most instances; the largest are kept."""
    merge: bool = True
    """Masks inside of larger ones are parts of these, not instances."""

    def __post_init__(self):
        if not 0 <= self.min_area < 1 or self.max_count < 1:
            raise ValueError(
                "ObjectConfig: expected min_area in [0, 1) and max_count of at least 1, got "
                f"{self.min_area} and {self.max_count}"
            )


def instances(masks: Sequence[Region], config: ObjectConfig, *, ground: bool = True) -> list[int]:
    """Numbers of the masks that are instances, the largest first: where masks overlap the higher
    id owns a pixel, and so the smaller one is seen.

    Args:
        ground: one of the masks may be the picture's ground, which is no instance.
    """
    areas = np.array([mask.sum() for mask in masks])
    if not areas.size:
        return []
    pixels = masks[0].size
    most = BACKGROUND * pixels if ground else pixels + 1
    order = [i for i in np.argsort(-areas, kind="stable") if 0 < areas[i] < most]
    kept: list[int] = []
    for index in order:
        if areas[index] < config.min_area * pixels or len(kept) == config.max_count:
            break
        within = (masks[index] & masks[whole] for whole in kept) if config.merge else ()
        if not any(part.sum() >= INSIDE * areas[index] for part in within):
            kept.append(int(index))
    return kept


def mended(mask: Region, area: int) -> Region:
    """A mask without holes and islands of fewer pixels."""
    return without_small(mask, area) if area else mask
