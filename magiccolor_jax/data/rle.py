"""Masks as COCO run lengths: how records store them, and what segmentation data sets hold.

A mask is read column by column; its runs alternate, beginning with one of zeros (empty where the
first pixel is set). COCO's string (pycocotools, common/maskApi.c) holds each run, from the 4th on
less the run two before it, in groups of 5 bits, lowest first, as the characters 48 to 111: bit 5
says that a group follows, and bit 4 of the last group is the sign.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import cv2
import numpy as np
from jaxtyping import Bool, Int

from magiccolor_jax.data.pictures import MAX_PIXELS

GROUPS = 6
"""Most groups of a number: 29 bits and a sign, enough for runs of `MAX_PIXELS`."""


class Rle(TypedDict):
    """A mask in COCO's form."""

    size: list[int]
    """Height and width."""
    counts: bytes | str | list[int]
    """The runs: COCO's string, or uncompressed."""


def encode(mask: Bool[np.ndarray, "H W"]) -> Rle:
    """A mask as COCO's string.

    Raises:
        ValueError: the mask has no pixel or too many.
    """
    height, width = _check_size(list(mask.shape))
    flat = cv2.transpose(np.ascontiguousarray(mask).view(np.uint8)).ravel()  # column by column
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = np.zeros(1 + flat[0], np.int64)  # an empty run of zeros where the first pixel is set
    runs = np.diff(np.concatenate([first, changes, [flat.size]]))
    return Rle(size=[height, width], counts=_compress(runs))


def decode(rle: Mapping[str, Any]) -> Bool[np.ndarray, "H W"]:
    """The mask of COCO's run lengths, compressed (bytes or str) or not (list).

    Raises:
        ValueError: the fields, the size, the string or the runs are not COCO's.
    """
    if set(rle) != {"size", "counts"}:
        raise _error("it has two fields", "size and counts", ", ".join(map(str, rle)) or "none")
    height, width = _check_size(rle["size"])
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "surrogatepass")  # what is not ASCII is no digit
    runs = _decompress(counts) if isinstance(counts, bytes) else _uncompressed(counts)
    area = height * width
    if ((runs < 0) | (runs > area)).any() or runs.sum() != area:
        got = f"{len(runs)} runs of {runs.min(initial=0)} to {runs.max(initial=0)}, {runs.sum()}"
        raise _error("its runs fill the mask", f"{height} x {width} = {area} pixels", got)
    values = np.arange(len(runs), dtype=np.uint8) & 1
    return cv2.transpose(np.repeat(values, runs).reshape(width, height)).view(np.bool_)


def _check_size(size: object) -> tuple[int, int]:
    """Height and width of a mask; raises ValueError unless they are such, of 1 to MAX_PIXELS."""
    match size:
        case [int(height), int(width)] if min(height, width) > 0 and height * width <= MAX_PIXELS:
            return height, width
    expected = f"[height, width] of 1 to {MAX_PIXELS:,} pixels"
    raise _error("its size is reasonable", expected, repr(size)[:80])


def _compress(runs: Int[np.ndarray, "n"]) -> bytes:
    """Runs -> COCO's string."""
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    limits = np.int64(1) << 5 * np.arange(1, GROUPS) - 1  # of 1, 2, ... groups
    lengths = 1 + ((numbers < -limits[:, None]) | (numbers >= limits[:, None])).sum(axis=0)
    places = np.arange(lengths.max())
    groups = numbers[:, None] >> 5 * places & 31  # [n groups]
    groups |= (places < lengths[:, None] - 1) << 5
    return (groups + 48).astype(np.uint8)[places < lengths[:, None]].tobytes()


def _decompress(counts: bytes) -> Int[np.ndarray, "n"]:
    """COCO's string -> runs.

    Raises:
        ValueError: a character that is no group, a number cut short or too long, or none at all.
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if groups.size == 0 or groups.min() < 0 or groups.max() > 63:
        got = repr(counts[:20]) if groups.size else "an empty string"
        raise _error("its string is COCO's", "characters from '0' to 'o'", got)
    if groups[-1] & 32:
        raise _error("its string is whole", "a last group without bit 5", "a string cut short")
    starts = np.concatenate([[0], np.flatnonzero(~groups[:-1] & 32) + 1])
    lengths = np.diff(starts, append=len(groups))
    if lengths.max() > GROUPS:
        got = f"one of {lengths.max()} groups"
        raise _error("its numbers are runs", f"at most {GROUPS} groups each", got)
    places = np.arange(len(groups)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((groups & 31) << 5 * places, starts)
    runs -= (groups[starts + lengths - 1] >> 4 & 1) << 5 * lengths  # the sign
    for first in (1, 2):  # each is the difference to the run two before it, from the 4th on
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _uncompressed(counts: object) -> Int[np.ndarray, "n"]:
    """Runs as they stand; raises ValueError unless they are a list of whole numbers."""
    if not isinstance(counts, list) or not counts or any(type(run) is not int for run in counts):
        got = f"{type(counts).__name__} {repr(counts)[:40]}"
        raise _error("its counts are runs", "bytes, text or a list of whole numbers", got)
    return np.asarray([min(max(run, -1), MAX_PIXELS + 1) for run in counts], np.int64)


def _error(rule: str, expected: str, got: str) -> ValueError:
    """The error of a run-length mask that is not one."""
    return ValueError(
        f"a run-length mask: {rule}: expected {expected}, got {got}; encode the mask again"
    )
