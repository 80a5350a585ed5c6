"""What records are made of: pictures, alone or as frames of one shot, and where they are from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.records import Provenance
from magiccolor_jax.data.scenes import View
from magiccolor_jax.data.transforms import Mask, Picture, resize


class Still(NamedTuple):
    """A picture, and what is known of it already."""

    name: str
    """Of its record; masks and sketches that are given are looked for by it."""
    path: Path
    """For messages."""
    picture: Picture
    alpha: Mask | None = None
    """0..255, where the file has an alpha channel."""
    masks: tuple[Mask, ...] | None = None
    """Of its instances, 0..255; None: they have to be found."""
    views: tuple[tuple[View, ...], ...] = ()
    """For each mask other pictures of its instance."""
    lines: Picture | None = None
    """Its sketch; None: it has to be drawn."""
    note: str = ""
    """What its provenance says beside that of its unit."""


class Bad(NamedTuple):
    """What is left out."""

    name: str
    reason: str


class Group(NamedTuple):
    """Stills that are read at once."""

    stills: list[Still]
    looks: Mapping[int, tuple[int, ...]]
    """Numbers of those that become records -> numbers of the others in which their instances are
    looked for."""
    bad: Sequence[Bad] = ()
    """Stills that are left out."""


class Unit(NamedTuple):
    """What is read, and fails, at once."""

    name: str
    clip: str
    """Units of one clip are never divided between training and held-out."""
    kind: str
    """Of the input it is from."""
    path: Path
    """The file that it is read from, or the folder."""
    scenes: int
    """Records that become of it, at most."""
    provenance: Provenance
    read: Callable[[], Group]
    """Raises ValueError, OSError: it cannot be read."""


def alone(still: Still) -> Group:
    """A still that has no others."""
    return Group([still], {0: ()})


def shrunk(still: Still, side: int) -> Still:
    """A still with that longest side, unless it is smaller already; views as they are.

    Args:
        side: in pixels.
    """
    height, width = still.picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return still
    shape = max(round(height * scale), 1), max(round(width * scale), 1)

    def small(array: np.ndarray) -> np.ndarray:
        return np.rint(resize(array, *shape)).astype(np.uint8)

    def small_mask(mask: Mask) -> UInt8[np.ndarray, "h w"]:
        return np.where(resize(mask, *shape) > MASK_MIDDLE, np.uint8(255), np.uint8(0))

    return still._replace(
        picture=small(still.picture),
        alpha=None if still.alpha is None else small(still.alpha),
        masks=None if still.masks is None else tuple(map(small_mask, still.masks)),
        lines=None if still.lines is None else small(still.lines),
    )
