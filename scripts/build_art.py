"""Builds the library of openly licensed drawings that training pages are composed of.

    pip install '.[art]'            # resvg, which draws SVG; DiceBear's styles need Node.js as well
    python scripts/build_art.py --out runs/art/art_256.npz
    python scripts/build_art.py --side 128 --permissive --most 250 --out runs/art/mini.npz

Packages come from npm's and Debian's registries by their own clients, in pinned versions whose
SHA-256 is known. The command goes on where it was interrupted: a source that was drawn is kept
beside the packages. Beside the library lie its attribution and the list of what was rejected.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from art_attribution import attribution
from art_drawing import Group, draw_group
from art_readers import Subject, subjects
from art_siblings import Entry, join_siblings
from art_sources import PERMISSIVE, Source, choose, refuse_never_trained
from art_svg import DrawingError
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from magiccolor_jax.data.art import PARTS, read_art
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.files import atomic_file

CODE = (
    "art_readers.py",
    "art_dicebear.mjs",
    "art_style.py",
    "art_svg.py",
    "art_drawing.py",
    "art_siblings.py",
)
"""Files that decide what a source becomes."""

CHUNK = 8
"""Subjects that a process takes at a time."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which drawings, how large, and where."""

    out: Path = Path("runs/art/art_256.npz")
    """The library; NAME_attribution.md and NAME_rejected.json are written beside it."""
    side: int = 256
    """Of the pictures, in pixels; at least 32."""
    sources: tuple[str, ...] = ()
    """Names of scripts/art_sources.py; none: all."""
    permissive: bool = False
    """Leave out what asks for attribution on every copy: public domain, CC0, MIT, Apache stay."""
    most: int | None = None
    """Most groups of each source; those of several drawings come first."""
    work: Path = Path("runs/art/work")
    """Where packages and drawn sources are kept."""
    npm_registry: str | None = None
    """Address of an npm registry; none: the one that npm is set up with."""
    processes: int = os.cpu_count() or 1
    """That draw side by side."""

    def __post_init__(self):
        if self.side < 32 or self.processes < 1 or (self.most is not None and self.most < 1):
            raise ValueError(
                "side, processes, most: expected >= 32, >= 1, >= 1, got "
                f"{self.side}, {self.processes}, {self.most}"
            )
        if self.out.suffix != ".npz":
            raise ValueError(f"--out: a library is an .npz file: expected FILE.npz, got {self.out}")


class Part(NamedTuple):
    """What became of one source."""

    palettes: UInt8[np.ndarray, "G 64 3"]
    indices: UInt8[np.ndarray, "N R R"]
    lines: UInt8[np.ndarray, "N R R"]
    meta: list[dict[str, Any]]
    rejected: dict[str, str]
    """Subject -> why."""


def main(args: Args, console: Console | None = None) -> None:
    """Builds a library, and prints what became of each source.

    Raises:
        CaseError: a package cannot be had, or is not what it should be; a source may not be
            trained on; nothing is left.
        OSError: a file cannot be written.
    """
    chosen = choose(args.sources)
    if args.permissive:
        chosen = [source for source in chosen if source.licence in PERMISSIVE]
    build(args, chosen, console or Console(stderr=True))


def build(args: Args, sources: list[Source], console: Console) -> None:
    """As `main`, of these sources."""
    for source in sources:
        refuse_never_trained(source.name, source.packages)
    parts = {source.name: part_of(source, args, console) for source in sources}
    library = _assembled([_reduced(part, args.most) for part in parts.values()], args.side)
    if not library.meta:
        raise CaseError(
            args.out,
            "a library holds drawings",
            expected=f"some from {', '.join(parts) or 'a source'}",
            got="none",
            fix="choose other --sources, or leave out --permissive",
        )
    known = {source.name: source for source in sources}
    text = attribution(library.meta, args.side, known)
    write_library(args.out, library)
    beside = args.out.with_suffix("")
    with atomic_file(beside.with_name(f"{beside.name}_attribution.md")) as file:
        file.write_text(text)
    with atomic_file(beside.with_name(f"{beside.name}_rejected.json")) as file:
        rejected = {name: part.rejected for name, part in parts.items()}
        file.write_text(json.dumps(rejected, indent=1) + "\n")
    console.print(summary(parts, library))
    total = f"{args.out}: {len(library.meta)} groups, {len(library.indices)} drawings"
    console.print(total, markup=False)


def part_of(source: Source, args: Args, console: Console) -> Part:
    """What becomes of a source: kept from an earlier run of the same code, or drawn now."""
    path = args.work / "parts" / f"{source.name}_{args.side}_{_key(source)}.npz"
    if path.is_file():
        try:
            part = _read_part(path)
            console.print(f"{source.name}: as drawn before ({path})", markup=False)
            return part
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError) as error:
            words = f"{path}: damaged ({error}), so {source.name} is drawn again"
            console.print(words, markup=False)
    part = _draw(source, args, console)
    with atomic_file(path) as file, file.open("wb") as stream:
        _save(stream, part, rejected=part.rejected)
    return part


def _key(source: Source) -> str:
    """Of a source's row and the code that draws it."""
    found = hashlib.sha256(repr(source).encode())
    for name in CODE:
        found.update(Path(__file__).with_name(name).read_bytes())
    return found.hexdigest()[:12]


def _draw(source: Source, args: Args, console: Console) -> Part:
    asked = subjects(source, args.work / "packages", args.npm_registry)
    entries, rejected, seen = [], {}, set()
    with Progress(console=console) as progress:
        made = progress.track(
            _drawn(asked, args), total=len(asked), description=f"{source.name:21}"
        )
        for subject, result in zip(asked, made, strict=True):
            if isinstance(result, str):
                rejected[subject.id] = result
                continue
            digest = hashlib.sha256(result.palette.tobytes() + result.indices.tobytes()).digest()
            if digest in seen:
                rejected[subject.id] = "there twice"
                continue
            seen.add(digest)
            entries.append(Entry(_meta(source, subject, result), result))
    if source.kind == "iconify":
        entries = join_siblings(entries)
    return _packed(entries, rejected, args.side)


def _meta(source: Source, subject: Subject, group: Group) -> dict[str, Any]:
    named = {"authors": [subject.author]} if subject.author else {}
    where = {"id": subject.id, "src": source.name, "lic": source.licence.name}
    return where | {"n": len(group.indices)} | group.measures | named


def _drawn(asked: list[Subject], args: Args) -> Iterator[Group | str]:
    """Each subject's group, or why there is none."""
    draw = functools.partial(_try, side=args.side)
    if args.processes == 1:
        yield from map(draw, asked)
        return
    # A fresh interpreter each: a fork would inherit threads.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(args.processes, spawn, initializer=_follow)
    try:
        yield from pool.map(draw, asked, chunksize=CHUNK)
    except BrokenProcessPool:
        raise CaseError(
            args.work,
            "every process draws until all is drawn",
            expected=f"{args.processes} processes",
            got="one that ended by itself, or was ended: the memory may be full",
            fix="run it again, with fewer --processes",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow() -> None:
    """In a process that draws: Ctrl-C is its parent's to answer, and it ends when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def ends() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=ends, daemon=True).start()


def _try(subject: Subject, side: int) -> Group | str:
    if subject.problem:
        return subject.problem
    try:
        return draw_group(subject.drawings, side)
    except DrawingError as reason:
        return str(reason)


def _packed(entries: list[Entry], rejected: dict[str, str], side: int) -> Part:
    empty = np.zeros((0, side, side), np.uint8)
    groups = [entry.group for entry in entries]
    return Part(
        np.array([group.palette for group in groups], np.uint8).reshape(-1, 64, 3),
        np.concatenate([empty, *(group.indices for group in groups)]),
        np.concatenate([empty, *(group.lines for group in groups)]),
        _numbered([entry.meta for entry in entries]),
        rejected,
    )


def _numbered(meta: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the number of each group's first row."""
    firsts = np.cumsum([0, *(entry["n"] for entry in meta)]).tolist()
    return [entry | {"first": first} for entry, first in zip(meta, firsts, strict=False)]


def _reduced(part: Part, most: int | None) -> Part:
    """At most so many groups, those of several drawings first, else by their names' checksum."""
    if most is None or len(part.meta) <= most:
        return part
    order = [(-entry["n"], zlib.crc32(entry["id"].encode())) for entry in part.meta]
    kept = sorted(sorted(range(len(order)), key=order.__getitem__)[:most])
    meta = [part.meta[number] for number in kept]
    rows = [row for entry in meta for row in range(entry["first"], entry["first"] + entry["n"])]
    return Part(
        part.palettes[kept], part.indices[rows], part.lines[rows], _numbered(meta), part.rejected
    )


def _assembled(parts: list[Part], side: int) -> Part:
    """One library of several."""
    empty = np.zeros((0, side, side), np.uint8)
    return Part(
        np.concatenate([np.zeros((0, 64, 3), np.uint8), *(part.palettes for part in parts)]),
        np.concatenate([empty, *(part.indices for part in parts)]),
        np.concatenate([empty, *(part.lines for part in parts)]),
        _numbered([entry for part in parts for entry in part.meta]),
        {},
    )


def _read_part(path: Path) -> Part:
    # A damaged file that NumPy opened itself would stay open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        arrays = [stored[name] for name in PARTS]
        texts = json.loads(str(arrays[3])), json.loads(str(stored["rejected"]))
    return Part(arrays[0], arrays[1], arrays[2], *texts)


def _save(stream: Any, part: Part, **texts: Any) -> None:
    arrays = dict(zip(PARTS, (part.palettes, part.indices, part.lines), strict=False))
    texts = {name: json.dumps(value) for name, value in (texts | {"meta": part.meta}).items()}
    np.savez_compressed(stream, **arrays, **texts)


def write_library(path: Path, library: Part) -> None:
    """Writes what training reads, once it was read that way; until then an old file stays.

    Raises:
        CaseError: a drawing may not be trained on, or `magiccolor_jax.data.art` does not read it.
    """
    for entry in library.meta:
        refuse_never_trained(entry["src"])
    with atomic_file(path) as file:
        with file.open("wb") as stream:
            _save(stream, library)
        read_art(file)


def summary(parts: dict[str, Part], library: Part) -> Table:
    """A row a source: what it holds, what is kept, and why the rest is not."""
    table = Table("source", "subjects", "groups", "drawings", "rejected")
    kept = Counter(entry["src"] for entry in library.meta)
    for name, part in parts.items():
        used = sum(1 + len(entry.get("siblings", [])) for entry in part.meta)
        rows = sum(entry["n"] for entry in library.meta if entry["src"] == name)
        reasons = Counter(part.rejected.values()).most_common()
        why = ", ".join(f"{reason} {count}" for reason, count in reasons)
        counts = (used + len(part.rejected), kept[name], rows)
        table.add_row(name, *map(str, counts), why)
    return table


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last whole source")
