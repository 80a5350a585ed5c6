"""Openly licensed drawings, packed: palettes, index pictures and exact line art.

A library is one .npz file. Each group holds drawings of one subject (other poses, other
expressions) that share a palette of 64 colours, so that a drawing is recoloured by changing these.
The line art comes from the geometry, every shape white with a black outline, and shows no colour.
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.transforms import WHITE, Mask, Picture

NEVER_TRAINED = ("dicebear-avataaars",)
"""Sources whose licence is no standard one."""

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


def read_art(path: Path) -> Art:
    """Reads a library, which takes two bytes per pixel of memory.

    Raises:
        CaseError: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            palettes, indices, lines, text = (stored[name] for name in PARTS)
        meta = json.loads(str(text))
        rows = sum(each["n"] for each in meta)
        whole = (len(meta), rows) == (len(palettes), len(indices)) and lines.shape == indices.shape
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if whole:
            return Art(palettes, indices, lines, meta)
        problem = f"{len(meta)} groups of {rows} drawings, shapes {palettes.shape}, {indices.shape}"
    raise CaseError(
        path,
        "a library of drawings is an .npz file of this project",
        expected=", ".join(f"{name} {shape}" for name, shape in PARTS.items()),
        got=problem,
        fix="make it by scripts/build_art.py",
    )


def render(
    indices: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "64 3"]
) -> tuple[Picture, Mask]:
    """A drawing on white, and its mask, 0 or 255."""
    mask = np.where(indices > 0, np.uint8(255), np.uint8(0))
    return np.where(mask[..., None] > 0, palette[indices], np.uint8(WHITE)), mask
