"""What a report has measured so far: a line per page in rows.jsonl, and features beside it.

Both files only grow; a run that is broken off loses the page that it was at. Several processes
write a pair of files each, and whoever reads the folder reads all of them.
"""

import json
import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from magiccolor_jax.evaluation.frechet import Statistics
from magiccolor_jax.parallel.multihost import Share

Row = dict[str, Any]

PART = 4096
"""Features in memory at once."""


class Entry(NamedTuple):
    """A measured page."""

    method: str
    case: str
    key: str
    """Of everything that the row depends on."""
    row: Row
    feature: tuple[str, int, int] | None
    """Of Inception: its file, its place in it, and how many numbers one has."""


class Rows:
    """The rows in a folder."""

    def __init__(self, folder: Path, share: Share):
        """Reads what is there.

        Args:
            share: this process' part, which names its files.
        """
        self._folder = folder
        part = "" if share.count == 1 else f"-{share.index:05}-of-{share.count:05}"
        self._file = folder / f"rows{part}.jsonl"
        self._features = folder / f"features{part}.f32"
        self._known: dict[tuple[str, str, str], Entry] = {}
        for path in sorted(folder.glob("rows*.jsonl")):
            for entry in _read(path):
                self._known[entry[:3]] = entry

    def find(self, method: str, case: str, key: str) -> Entry | None:
        """The row of a page; None where it is not measured, or was of something else."""
        return self._known.get((method, case, key))

    def add(
        self,
        named: Sequence[tuple[str, str, str]],
        rows: Sequence[Row],
        features: Float[np.ndarray, "B D"] | None,
    ) -> None:
        """Appends a batch.

        Args:
            named: method, case and key of each row.

        Raises:
            OSError: the disk is full; what was there stays.
        """
        start = 0 if features is None else self._append_features(features)
        lines = []
        for index, ((method, case, key), row) in enumerate(zip(named, rows, strict=True)):
            place = None
            if features is not None:
                place = (self._features.name, start + index, features.shape[1])
            entry = Entry(method, case, key, row, place)
            self._known[entry[:3]] = entry
            lines.append(json.dumps(entry._asdict()) + "\n")
        with self._file.open("ab") as file:
            # After a torn line, which has no end, a new one begins.
            torn = file.tell() > 0 and not _ends_line(self._file)
            file.write(("\n" * torn + "".join(lines)).encode())
            file.flush()
            os.fsync(file.fileno())

    def statistics(self, entries: Sequence[Entry]) -> Statistics:
        """Of Inception's features of at least one row, read part by part."""
        parts = (entries[i : i + PART] for i in range(0, len(entries), PART))
        return reduce(Statistics.merged, (Statistics.of(self.features(part)) for part in parts))

    def features(self, entries: Sequence[Entry]) -> Float[np.ndarray, "N D"]:
        """Inception's features of rows that have them."""
        found = []
        for entry in entries:
            assert entry.feature is not None, "measured with the protocol's FID"
            name, place, width = entry.feature
            path, offset = self._folder / name, 4 * width * place
            found.append(np.fromfile(path, "<f4", width, offset=offset))
        return np.stack(found)

    def _append_features(self, features: Float[np.ndarray, "B D"]) -> int:
        """Place of the first."""
        values = np.ascontiguousarray(features, "<f4")
        stride = values.shape[1] * 4
        self._features.touch()
        with self._features.open("r+b") as file:
            # What a broken run left of a feature is overwritten.
            start = file.seek(0, os.SEEK_END) // stride
            file.seek(start * stride)
            file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())
        return start


def _read(path: Path) -> list[Entry]:
    """The whole lines of a file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
            place = content["feature"]
            found.append(Entry(**content | {"feature": tuple(place) if place else None}))
        except (ValueError, TypeError, KeyError):
            continue  # torn by a crash: the page is measured again
    return found


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
