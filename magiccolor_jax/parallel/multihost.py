"""Sharing work between processes: each takes every n-th item, and they never talk."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax

Item = TypeVar("Item")


class Share(NamedTuple):
    """Process `index` of `count`."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Items i with i mod count == index."""
        return list(items[self.index :: self.count])


def share(text: str | None) -> Share:
    """Reads `I/N` (process I of N, from 0); without it, what jax.distributed knows.

    Raises:
        ValueError: not of that form, or I is not below N.
    """
    if text is None:
        return Share(jax.process_index(), jax.process_count())
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"process must be I/N with 0 <= I < N (such as 0/4), got {text!r}")
    return Share(int(index), int(count))
