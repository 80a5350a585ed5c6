"""The work in parts: a shard each, written whole with a note of what went into it.

They stand in a folder for the work below the results, until these are whole:

SPLIT-NNNNN.array_record   a shard, and its sidecar
SPLIT-NNNNN.json           what it holds and what was left out; written last, and so the mark that
                           the part is done
surveys/                   what clips hold
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.shards import SUFFIX, Packed, gather, open_shard, write_shard
from magiccolor_jax.files import atomic_file
from magiccolor_jax.prepare.making import Made
from magiccolor_jax.prepare.stills import Bad, Unit
from magiccolor_jax.sampling.pipeline import threaded_map

TRAIN, HELD_OUT = "train", "held_out"


class Chunk(NamedTuple):
    """A part of the work."""

    split: str
    number: int
    units: list[Unit]


class Note(NamedTuple):
    """What became of a chunk."""

    records: list[dict[str, Any]]
    bad: list[Bad]


def split_of(clip: str, share: float, seed: int) -> str:
    """The split of a clip, by a hash of its name: whatever else there is, it stays in it.

    Args:
        share: of the clips that are held out, 0..1.
    """
    digest = hashlib.sha256(f"{seed} {clip}".encode(errors="surrogatepass")).digest()
    return HELD_OUT if int.from_bytes(digest[:8]) < share * 2**64 else TRAIN


def divide(units: Sequence[Unit], share: float, seed: int, records: int) -> list[Chunk]:
    """Units in their order, split by split, in chunks of at least so many records; the last of a
    split may have fewer.

    Args:
        share: of the clips that are held out, 0..1.
    """
    chunks = []
    for split in (TRAIN, HELD_OUT):
        parts: list[list[Unit]] = []
        room = 0
        for unit in (unit for unit in units if split_of(unit.clip, share, seed) == split):
            if room <= 0:
                parts.append([])
                room = records
            parts[-1].append(unit)
            room -= unit.scenes
        chunks += [Chunk(split, number, part) for number, part in enumerate(parts)]
    return chunks


def shard_of(work: Path, chunk: Chunk) -> Path:
    """Where the shard of a chunk is."""
    return work / f"{chunk.split}-{chunk.number:05}{SUFFIX}"


def read_note(work: Path, chunk: Chunk) -> Note | None:
    """What became of a chunk; None where it is not done, or its shard is not whole."""
    shard = shard_of(work, chunk)
    try:
        content = json.loads(shard.with_suffix(".json").read_text())
        note = Note(content["records"], [Bad(*row) for row in content["bad"]])
        if not note.records or len(open_shard(shard).outlines) == len(note.records):
            return note
    except (OSError, ValueError, LookupError, TypeError, CaseError):
        pass
    return None


def make_chunks(
    work: Path,
    chunks: Sequence[Chunk],
    make: Callable[[Unit], Made],
    workers: int,
    tell: Callable[[Unit, Made], None],
) -> None:
    """Makes the shards of chunks, one after another; units are worked on ahead, across chunks.

    Args:
        tell: is called for each unit, in order.

    Raises:
        OSError: the disk is full; what is whole stays.
    """
    units = (unit for chunk in chunks for unit in chunk.units)
    results = threaded_map(make, units, ahead=2 * workers, workers=workers)
    for chunk in chunks:
        records: list[dict[str, Any]] = []
        bad: list[Bad] = []
        packed = _packed(chunk, results, records, bad, tell)
        shard = shard_of(work, chunk)
        first = next(packed, None)
        if first is not None:
            write_shard(shard, itertools.chain([first], packed))
        with atomic_file(shard.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({"records": records, "bad": bad}) + "\n")


def _packed(
    chunk: Chunk,
    results: Iterator[Made],
    records: list[dict[str, Any]],
    bad: list[Bad],
    tell: Callable[[Unit, Made], None],
) -> Iterator[Packed]:
    """The records of a chunk as they are made; what is noted of them goes to the lists."""
    for unit in chunk.units:
        made = next(results)
        records += [{**about, "split": chunk.split} for about in made.about]
        bad += made.bad
        tell(unit, made)
        yield from made.packed


def publish(out: Path, work: Path, chunks: Sequence[Chunk], notes: Sequence[Note]) -> None:
    """Makes the folders that training reads, of the shards that have records.

    Raises:
        OSError: the disk is full.
    """
    for split in (TRAIN, HELD_OUT):
        done = zip(chunks, notes, strict=True)
        shards = [
            shard_of(work, chunk) for chunk, note in done if chunk.split == split and note.records
        ]
        if shards and not (out / split).exists():
            gather(out / split, shards)
