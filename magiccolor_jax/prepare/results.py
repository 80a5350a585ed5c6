"""Folders below an input that are none of it: what is given, and our commands' results."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from magiccolor_jax.data.listing import walk
from magiccolor_jax.prepare.cuts import FOLDER, OVERLAYS, RECORD, read_record
from magiccolor_jax.prepare.extracting import LINES, SHEETS
from magiccolor_jax.sampling.outputs import read_made_by

JOB = "prepare.json"
"""What `magiccolor prepare` notes in its folder of results."""


def set_aside(root: Path, out: Path, given: Iterable[Path]) -> list[Path]:
    """Folders at which nothing is an input: that of the results, what is given (unless the input is
    it, or stands in it), and what `magiccolor segment`, `lineart` and `prepare` left in the input.
    """
    real = Path(os.path.realpath(root))
    found = [out, *(path for path in given if not real.is_relative_to(os.path.realpath(path)))]
    there = {os.path.realpath(path) for path in found}

    def collect(folder: Path, entries: Sequence[Path]) -> bool:
        if os.path.realpath(folder) in there:
            return True
        names = {entry.name for entry in entries}
        if JOB in names and folder != root:
            found.append(folder)
            return True
        mine = [*_results(folder, names)]
        found.extend(mine)
        there.update(map(os.path.realpath, mine))
        return False

    for _ in walk(root, collect):
        pass
    return found


def _results(folder: Path, names: set[str]) -> Iterator[Path]:
    """Folders in one that `magiccolor segment` or `lineart` have written."""
    cut = (folder / FOLDER).rglob(RECORD) if FOLDER in names else ()
    if any(read_record(path.parent) for path in cut):
        yield from (folder / name for name in (FOLDER, OVERLAYS) if name in names)
    if {LINES, SHEETS} <= names:
        sheet = next((folder / SHEETS).rglob("*.png"), None)
        if sheet is not None and read_made_by(sheet) is not None:
            yield from (folder / LINES, folder / SHEETS)
