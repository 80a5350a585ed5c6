"""Folders of ArrayRecord shards: writing them, and reading scenes from them at random.

NNNNN-of-MMMMM.array_record     records.py's records
NNNNN-of-MMMMM.outlines.npy     [1 + N, 4] int64, so that planning decodes nothing:
                                (version, bytes of the shard, N, 0), then for each record
                                (height, width, instances, CRC-32 of the record)
"""

import bisect
import errno
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Int64

from magiccolor_jax.data.listing import contents, digest, walk
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.records import Provenance, Record, decode_record, encode_record
from magiccolor_jax.data.scenes import Outline, Scene
from magiccolor_jax.files import atomic_directory, atomic_file, link_or_copy

SHARD = re.compile(r"([0-9]{5})-of-([0-9]{5})\.array_record")
SUFFIX, SIDECAR = ".array_record", ".outlines.npy"

WRITING = "group_size:1,uncompressed"
"""Each record by itself, for random access; pictures are compressed already."""

READING = "readahead_buffer_size:0,max_parallelism:0"
"""Nothing but the record that is asked for, in the thread that asks."""


VERSION = 1
"""Of the sidecar's format; records have one of their own."""

OPEN_SHARDS = 64
"""Most that a process keeps open: systems allow a thousand files or so."""


class Shard(NamedTuple):
    """One shard and the outlines of its records."""

    path: Path
    outlines: Int64[np.ndarray, "N 4"]


class Packed(NamedTuple):
    """A record as it is written, and what its sidecar says of it."""

    data: bytes
    outline: Outline


def pack(scene: Scene, provenance: Provenance) -> Packed:
    """A scene as a record.

    Raises:
        CaseError: a reader would refuse it.
    """
    height, width = scene.target.shape[:2]
    outline = Outline(height, width, len(scene.masks))
    return Packed(encode_record(scene, provenance), outline)


def write_records(
    folder: str | Path,
    scenes: Iterable[tuple[Scene, Provenance]],
    *,
    scenes_per_shard: int = 1000,
) -> list[Path]:
    """Writes scenes into a new folder of shards; the folder appears when all of them are whole.

    Args:
        scenes: taken one by one; only one is held at a time.

    Returns:
        The shards.

    Raises:
        CaseError: a scene that a reader would refuse.
        FileExistsError: the folder exists.
        OSError: a shard cannot be written.
        ValueError: no scenes, or less than one in a shard.
    """
    if scenes_per_shard < 1:
        raise ValueError(f"write_records: expected scenes_per_shard >= 1, got {scenes_per_shard}")
    folder, rest = Path(folder), iter(scenes)
    with atomic_directory(folder) as new:
        shards = 0
        for first in rest:
            part = itertools.chain([first], itertools.islice(rest, scenes_per_shard - 1))
            write_shard(new / f"{shards:05}{SUFFIX}", itertools.starmap(pack, part))
            shards += 1
        if not shards:
            raise ValueError(f"write_records: {folder}: expected at least one scene, got none")
        names = shard_names(shards)
        for name in names:
            for suffix in (SUFFIX, SIDECAR):
                (new / (name[:5] + suffix)).rename(new / (name + suffix))
    return [folder / (name + SUFFIX) for name in names]


def write_shard(path: Path, records: Iterable[Packed]) -> None:
    """Writes one shard, and then its sidecar beside it; each is whole or not there.

    Args:
        path: of the shard, ending in `SUFFIX`.
        records: at least one, taken one by one.

    Raises:
        OSError: the shard cannot be written.
    """
    rows: list[tuple[int, ...]] = []
    with atomic_file(path) as temporary:
        writer = _call(path, array_record_module.ArrayRecordWriter, str(temporary), WRITING)
        for data, outline in records:
            _call(path, writer.write, data)
            rows.append((*outline, zlib.crc32(data)))
        _call(path, writer.close)
    table = [(VERSION, path.stat().st_size, len(rows), 0), *rows]
    with atomic_file(sidecar_of(path)) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(table, np.int64), allow_pickle=False)


def gather(folder: Path, shards: Sequence[Path]) -> None:
    """Makes a new folder of shards that stand elsewhere, in their order: links, where there can be.

    Raises:
        FileExistsError: the folder exists.
        OSError: the disk is full.
    """
    with atomic_directory(folder) as new:
        for name, shard in zip(shard_names(len(shards)), shards, strict=True):
            link_or_copy(shard, new / (name + SUFFIX))
            link_or_copy(sidecar_of(shard), new / (name + SIDECAR))


def shard_names(count: int) -> list[str]:
    """Names of a whole set, without suffix."""
    return [f"{number:05}-of-{count:05}" for number in range(count)]


def sidecar_of(shard: Path) -> Path:
    """Where a shard's outlines are."""
    return shard.with_name(shard.name.removesuffix(SUFFIX) + SIDECAR)


def _call(path: Path, function: Any, *args: Any) -> Any:
    """Calls the writer, which says by a RuntimeError that a disk is full.

    Raises:
        OSError: naming the shard.
    """
    try:
        return function(*args)
    except RuntimeError as error:
        text = f"{path}: the shard cannot be written: {error}"
        if os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, text) from error
        raise OSError(text) from error


class Records:
    """Scenes of every folder of shards at or below some folders.

    Readers are opened where they are first used, each process has its own, and threads share them:
    a source may be pickled, forked and read from many threads.
    """

    LAYOUT = f"NNNNN-of-MMMMM{SUFFIX} beside NNNNN-of-MMMMM{SIDECAR}"

    def __init__(self, path: str | Path, *more: str | Path):
        """Lists the shards, in natural order, and reads their outlines.

        Raises:
            CaseError: no shards in a path, a missing one, or one whose sidecar is not its own.
        """
        self._shards: list[Shard] = []
        for place in map(Path, (path, *more)):
            folders = list(walk(place, self.marks))
            if not folders:
                raise CaseError(
                    place,
                    "a source of records has shards",
                    expected=self.LAYOUT,
                    got=contents(place),
                    fix="check the path; `magiccolor prepare` makes such folders",
                )
            self._shards += [open_shard(shard) for folder in folders for shard in _list(folder)]
        sizes = [len(shard.outlines) for shard in self._shards]
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self._readers: dict[tuple[int, int], Any] = {}

    def fingerprint(self) -> str:
        """Of the records' checksums."""
        return digest(row for shard in self._shards for row in shard.outlines.tolist())

    @staticmethod
    def marks(folder: Path, entries: Sequence[Path]) -> bool:
        """Whether a folder holds shards."""
        return any(entry.name.endswith((SUFFIX, SIDECAR)) for entry in entries)

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        folders = dict.fromkeys(str(shard.path.parent) for shard in self._shards)
        return f"Records({', '.join(folders)}: {len(self)} scenes)"

    def outline(self, index: int) -> Outline:
        """Size and number of instances, from the sidecar."""
        shard, record = self._find(index)
        return Outline(*map(int, self._shards[shard].outlines[record, :3]))

    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene; raises CaseError with shard, record and field."""
        return self.record(index).scene

    def record(self, index: int) -> Record:
        """Reads and checks a scene with its provenance.

        Raises:
            CaseError: the record is damaged, or is not the one that the sidecar lists.
        """
        number, row = self._find(index)
        path, outlines = self._shards[number]
        where = path / f"record {row}"
        data = _read(where, self._reader(number), row)
        record = decode_record(data, where)
        found = (*record.scene.target.shape[:2], len(record.scene.masks), zlib.crc32(data))
        if found != tuple(outlines[row]):
            expected = "height {}, width {}, instances {}, CRC-32 {}"
            rule = "a record is the one that its sidecar lists"
            got = expected.format(*found)
            raise _mismatch(where, rule, expected.format(*outlines[row]), got)
        return record

    def _find(self, index: int) -> tuple[int, int]:
        """The shard and the record in it of a scene's number.

        Raises:
            IndexError: there is no such scene.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r}: no scene {index}")
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _reader(self, shard: int) -> Any:
        """This process' reader of a shard. It is found by the process' id rather than kept under a
        lock, which a fork could leave locked; two threads may open it at once, and one is kept."""
        key = (os.getpid(), shard)
        reader = self._readers.get(key)
        if reader is None:
            path = str(self._shards[shard].path)
            reader = array_record_module.ArrayRecordReader(path, READING)
            reader = self._readers.setdefault(key, reader)
            for oldest in list(self._readers)[:-OPEN_SHARDS]:
                self._readers.pop(oldest, None)  # closed when no thread reads from it any more
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}


def _list(folder: Path) -> list[Path]:
    """The shards of a folder; raises CaseError unless it holds one whole set."""
    names = sorted(name for name in os.listdir(folder) if SHARD.fullmatch(name))
    count = int(names[0][9:14]) if names else 1
    wanted = [name + SUFFIX for name in shard_names(count)]
    if names != wanted:
        missing = [name for name in wanted if name not in names]
        extra = [name for name in names if name not in wanted]
        got = "; ".join(
            f"{what} {', '.join(some[:3])}{' and more' if len(some) > 3 else ''}"
            for what, some in (("no", missing), ("also", extra))
            if some
        )
        rule = "a folder holds one whole set of shards"
        raise _mismatch(folder, rule, f"{len(wanted)} shards, {wanted[0]} and on", got)
    return [folder / name for name in names]


def open_shard(path: Path) -> Shard:
    """A shard with its outlines; raises CaseError unless the sidecar is there and the shard's."""
    sidecar = sidecar_of(path)
    try:
        with sidecar.open("rb") as file:
            table = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        rule = "a shard has a sidecar with its outlines"
        raise _mismatch(sidecar, rule, "an array that can be read", str(error)) from error
    if table.dtype != np.int64 or table.ndim != 2 or table.shape[1] != 4 or len(table) < 2:
        got = f"{table.dtype} {list(table.shape)}"
        raise _mismatch(sidecar, "a sidecar is a table", "int64 [1 + N, 4], N >= 1", got)
    if table[0, 0] != VERSION:
        rule, got = "this version reads its own format", f"version {table[0, 0]}"
        raise _mismatch(sidecar, rule, f"version {VERSION}", got)
    rule, names = "shard and sidecar belong together", "{} bytes of {} records"
    wanted, found = (table[0, 1], table[0, 2]), (path.stat().st_size, len(table) - 1)
    if wanted != found:
        raise _mismatch(path, rule, names.format(*wanted), names.format(*found))
    reader = array_record_module.ArrayRecordReader(str(path), READING)
    wanted = table[0, 2], table[1, 3]
    found = reader.num_records(), zlib.crc32(_read(path, reader, 0))
    reader.close()
    if wanted != found:
        names = "{} records, CRC-32 {} of the first"
        raise _mismatch(path, rule, names.format(*wanted), names.format(*found))
    return Shard(path, table[1:])


def _read(where: Path, reader: Any, row: int) -> bytes:
    """The bytes of a record; raises CaseError where the shard is damaged."""
    try:
        return reader.read([row])[0]
    except RuntimeError as error:
        if "Too many open files" in str(error):
            raise OSError(errno.EMFILE, "raise the limit (ulimit -n)", str(where)) from error
        got = str(error).splitlines()[0]
        raise _mismatch(where, "a shard can be read", "a whole record", got) from error


def _mismatch(where: Path, rule: str, expected: str, got: str) -> CaseError:
    """The error of files that are not as they were written."""
    fix = "copy shard and sidecar again from where they were written, or prepare them again"
    return CaseError(where, rule, expected, got, fix)
