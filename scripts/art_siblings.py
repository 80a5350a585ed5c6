"""Makes one group of drawings in the same colours, such as the faces of one set.

A group's second drawing is what a reference shows: the same palette on another shape. Where a
source draws each subject once, drawings that share nearly all of their colours serve as well.
"""

from typing import Any, NamedTuple

import numpy as np
from art_drawing import COLORS, Group, color_shares
from jaxtyping import Float

from magiccolor_jax.data.art import split_of
from magiccolor_jax.data.palette import srgb_to_oklab

MOST = 3
"""Drawings of a group that is made here."""

COVERED, NEAR = 0.93, 0.035
"""Least share of each drawing that the other's colours paint, so near in Oklab."""

SAME = 0.02
"""Distance in Oklab under which two colours become one."""

MINOR, RICH_SHARE, RICH_COLORS = 0.004, 0.04, 3
"""Share under which a colour does not count; and from which it is one of the colours, at least so
many, without which likeness is no sign."""

BINS, CANDIDATES = 8, 24
"""Along each axis of Oklab; number of the likest histograms that are looked at."""


class Entry(NamedTuple):
    """A group and what a library's `meta` says of it."""

    meta: dict[str, Any]
    group: Group


class _Look(NamedTuple):
    """Colours of a drawing that count."""

    lab: Float[np.ndarray, "c 3"]
    shares: Float[np.ndarray, "c"]


def join_siblings(entries: list[Entry]) -> list[Entry]:
    """Single drawings of one source, those in the same colours in one group; their order stays.

    Subjects that are held out and such that are trained on never meet.
    """
    looks = [_look(entry.group) for entry in entries]
    likeness = _likeness(looks)
    open_ = [
        len(entry.group.indices) == 1 and (look.shares > RICH_SHARE).sum() >= RICH_COLORS
        for entry, look in zip(entries, looks, strict=True)
    ]
    joined, taken = [], set()
    for first, entry in enumerate(entries):
        if first in taken:
            continue
        order = np.argsort(-likeness[first], kind="stable")[: CANDIDATES + 1].tolist()
        for other in order if open_[first] else []:
            fits = other > first and other not in taken and open_[other]
            if not fits or split_of(entry.meta) != split_of(entries[other].meta):
                continue
            pair = looks[first], looks[other]
            if len(entry.group.indices) < MOST and _covered(*pair) and _covered(*pair[::-1]):
                entry = _joined(entry, entries[other])
                taken.add(other)
        joined.append(entry)
    return joined


def _look(group: Group) -> _Look:
    shares = color_shares(group.indices[0])
    counts = np.flatnonzero(shares > MINOR)
    return _Look(srgb_to_oklab(group.palette[counts]), shares[counts])


def _likeness(looks: list[_Look]) -> Float[np.ndarray, "N N"]:
    """Cosines between coarse histograms."""
    low, width = np.array([0, -0.3, -0.35]), np.array([1, 0.6, 0.7])
    rows = []
    for look in looks:
        cells = np.clip(np.rint((look.lab - low) / width * (BINS - 1)), 0, BINS - 1).astype(int)
        numbers = cells @ np.array([BINS**2, BINS, 1])
        rows.append(np.bincount(numbers, look.shares, BINS**3))
    found = np.array(rows).reshape(-1, BINS**3)
    found /= np.linalg.norm(found, axis=1, keepdims=True) + 1e-9
    return found @ found.T


def _covered(one: _Look, other: _Look) -> bool:
    """Whether the other's colours paint nearly all of the one."""
    gaps = np.linalg.norm(one.lab[:, None] - other.lab[None], axis=-1).min(axis=1)
    return one.shares[gaps < NEAR].sum() > COVERED


def _joined(entry: Entry, other: Entry) -> Entry:
    """The first group with the other's drawing, on a palette of both."""
    group, added = entry.group, other.group
    palette, used = group.palette.copy(), int(group.indices.max())
    entries = np.zeros(COLORS + 1, np.uint8)
    for old in np.unique(added.indices[added.indices > 0]):
        gaps = np.linalg.norm(
            srgb_to_oklab(palette[1 : used + 1]) - srgb_to_oklab(added.palette[old][None]), axis=1
        )
        if gaps.min() < SAME or used == COLORS:
            entries[old] = gaps.argmin() + 1
        else:
            used += 1
            palette[used] = added.palette[old]
            entries[old] = used
    names = [*entry.meta.get("siblings", []), other.meta["id"]]
    meta = entry.meta | {"n": len(group.indices) + 1, "ncolors": used, "siblings": names}
    return Entry(
        meta,
        Group(
            palette,
            np.concatenate([group.indices, entries[added.indices]]),
            np.concatenate([group.lines, added.lines]),
            group.measures,
        ),
    )
