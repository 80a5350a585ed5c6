"""Openly licensed drawings, packed: palettes, index pictures and exact line art.

A library is one .npz file. Each group holds drawings of one subject (other poses, other
expressions) that share a palette of 64 colours, so that a drawing is recoloured by changing these.
The line art comes from the geometry, every shape white with a black outline, and shows no colour.
"""

import functools
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from magiccolor_jax.data.pictures import DECODER_ERRORS, CaseError
from magiccolor_jax.data.transforms import WHITE, Mask, Picture

NEVER_TRAINED = (
    "dicebear-avataaars",
    "dicebear-miniavs",
    "dicebear-toon-head",
    "openmoji",
    "renpy",
    "streamline",
    "wesnoth",
)
"""Sources whose licence is no standard one, and sources of cases by which models are judged."""

HELD_OUT_SOURCES = ("dicebear-micah", "fxemoji")
"""Sources whose style no training sees."""

HELD_OUT_SHARE = 20
"""One in so many subjects of the other sources is held out, in all of its drawings."""

SPLITS = ("train", "objects", "sources")
"""What is trained on; subjects that are held out; sources that are."""

PARTS = {"palette": ("G", 64, 3), "idx": ("N", "R", "R"), "line": ("N", "R", "R"), "meta": ()}
"""Arrays of a library, and their shapes."""


class Art(NamedTuple):
    """The stored drawings."""

    palettes: UInt8[np.ndarray, "G 64 3"]
    """Of each group of drawings; entry 0 is transparent."""
    indices: UInt8[np.ndarray, "N R R"]
    lines: UInt8[np.ndarray, "N R R"]
    """0 is ink."""
    meta: list[dict[str, Any]]
    """Of each group: `id`, `src`, `lic`, `first` row, number of rows `n`, and what was measured."""

    @property
    def side(self) -> int:
        """Of every drawing, in pixels."""
        return self.indices.shape[1]

    def groups(self, split: str) -> Int[np.ndarray, "n"]:
        """Numbers of the groups of one of `SPLITS`.

        A subject has the same name in several sources, and so is held out in all of them.
        """
        return np.array([n for n, m in enumerate(self.meta) if split_of(m) == split], int)


def split_of(meta: dict[str, Any]) -> str | None:
    """The split that a group belongs to; None: no split has it."""
    if meta["src"] in NEVER_TRAINED:
        return None
    if meta["src"] in HELD_OUT_SOURCES:
        return "sources"
    subject = meta["id"].rpartition("/")[2]
    return "train" if zlib.crc32(subject.encode()) % HELD_OUT_SHARE else "objects"


@functools.lru_cache(maxsize=2)
def _read(path: Path, stamp: int) -> Art:
    """A library of that time: trainings and validations share its arrays."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            palettes, indices, lines, text = (stored[name] for name in PARTS)
        meta = json.loads(str(text))
        problem = _problem(palettes, indices, lines, meta)
    except (*DECODER_ERRORS, zipfile.BadZipFile) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem is None:
        return Art(palettes, indices, lines, meta)
    raise CaseError(
        path,
        "a library of drawings is an .npz file of this project",
        expected=", ".join(f"{name} {shape}" for name, shape in PARTS.items()),
        got=problem,
        fix="check the path, or take another copy (magiccolor_jax/data/art.py says what is in one)",
    )


def read_art(path: Path) -> Art:
    """Reads a library, which takes two bytes per pixel of memory.

    Raises:
        CaseError: it is none.
    """
    path = path.resolve()
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


def _problem(palettes: Any, indices: Any, lines: Any, meta: Any) -> str | None:
    """What is not as it should be."""
    shapes = [f"{part.dtype} {part.shape}" for part in (palettes, indices, lines)]
    right = all(part.dtype == np.uint8 for part in (palettes, indices, lines)) and (
        palettes.shape[1:] == (64, 3)
        and indices.ndim == 3
        and indices.shape[1] == indices.shape[2]
        and lines.shape == indices.shape
        and indices.max(initial=0) < 64
    )
    if not right:
        return f"{', '.join(shapes)}, indices up to {indices.max(initial=0)}"
    first = 0
    for entry in meta:
        if entry["first"] != first or entry["n"] < 1 or not {"id", "src", "lic"} <= set(entry):
            return f"an entry {entry} where row {first} is due"
        first += entry["n"]
    if (len(meta), first) != (len(palettes), len(indices)):
        return f"{len(meta)} groups of {first} drawings, arrays {', '.join(shapes)}"
    empty = np.flatnonzero(~indices.any(axis=(1, 2)))
    return f"drawings without a pixel: rows {empty[:5].tolist()}" if empty.size else None


def render(
    indices: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "64 3"]
) -> tuple[Picture, Mask]:
    """A drawing on white, and its mask, 0 or 255."""
    colors = palette.copy()
    colors[0] = WHITE
    mask = np.where(indices > 0, np.uint8(255), np.uint8(0))
    return np.take(colors, indices, axis=0, mode="clip"), mask


def drawn_box(
    indices: UInt8[np.ndarray, "R R"], lines: UInt8[np.ndarray, "R R"]
) -> tuple[slice, slice]:
    """Rows and columns of what is drawn: an outline stands half outside of what it surrounds."""
    drawn = (indices > 0) | (lines < 128)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
