"""Listing folders: natural order, pictures by stem, and the folders that hold one scene each."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from magiccolor_jax.data.pictures import PICTURE_SUFFIXES, CaseError

Marks = Callable[[Path, Sequence[Path]], bool]
"""Tells by a folder and its entries whether it is what is looked for, whole or broken."""


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key under which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(p) if i % 2 else p.casefold() for i, p in enumerate(parts)], name


def digest(names: Iterable[object]) -> str:
    """Hash of names in their order; one that is no UTF-8 counts as well."""
    text = "\n".join(map(str, names))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def some_names(names: Sequence[str]) -> str:
    """The first few names, for an error."""
    names = sorted(names, key=natural_key)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "nothing"


def contents(path: Path) -> str:
    """What is found at a path, for an error."""
    try:
        return some_names(os.listdir(path))
    except OSError as error:
        return error.strerror or str(error)


def is_picture(path: Path) -> bool:
    """Whether a name is a picture's; hidden files are none."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def pictures_in(folder: Path, wanted: str = ".*") -> dict[str, Path]:
    """Stem -> picture file, in natural order; hidden files and other kinds are ignored.

    Args:
        wanted: regex of the stems to look at.

    Raises:
        CaseError: the folder cannot be listed, or two pictures share a stem.
    """
    try:
        names = sorted(os.listdir(folder), key=natural_key)
    except OSError as error:
        raise CaseError(
            folder,
            "a case is a folder",
            expected="a folder that can be listed",
            got=error.strerror or str(error),
            fix="check the path and its permissions",
        ) from error
    found: dict[str, Path] = {}
    for file in (folder / name for name in names):
        if not is_picture(file) or not re.fullmatch(wanted, file.stem):
            continue
        if file.stem in found:
            raise CaseError(
                folder,
                "files pair by stem, so a stem stands once",
                expected=f"one picture called {file.stem}.*",
                got=f"{found[file.stem].name} and {file.name}",
                fix="remove or rename one of them",
            )
        found[file.stem] = file
    return found


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, as `files_below` has them."""
    return files_below(folder, is_picture)


def files_below(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """All files of a kind in a folder and below it, folder by folder in natural order.

    Raises:
        CaseError: a folder cannot be listed.
    """
    files, closed = look_below(folder, wanted)
    for each in closed:
        check_open(each)
    return files


class Below(NamedTuple):
    """What a folder and those below it hold, in natural order."""

    files: list[Path]
    closed: list[Path]
    """Folders that cannot be listed."""


def look_below(folder: Path, wanted: Callable[[Path], bool]) -> Below:
    """All files of a kind in a folder and below it, and the folders that stay unknown."""
    files: list[Path] = []

    def collect(folder: Path, entries: Sequence[Path]) -> bool:
        files.extend(filter(wanted, entries))
        return False

    closed = list(walk(folder, collect))  # nothing else is marked
    return Below(files, closed)


def check_open(path: Path) -> None:
    """Raises CaseError where a path is a folder that cannot be listed."""
    try:
        if os.path.isdir(path):
            os.listdir(path)
    except OSError as error:
        raise CaseError(
            path,
            "a folder is looked through",
            expected="a folder that can be listed",
            got=error.strerror or str(error),
            fix="check its permissions, or leave it out",
        ) from error


def walk(folder: Path, marks: Marks) -> Iterator[Path]:
    """The marked folders at or below a folder, in natural order; nothing below a marked one.

    Links are followed, each folder is visited once, hidden ones are left out. A folder that cannot
    be listed is taken as marked: its reader meets the same error and reports it.
    """
    yield from _walk(folder, marks, set())


def _walk(folder: Path, marks: Marks, seen: set[str]) -> Iterator[Path]:
    """`walk` past the folders whose real paths are in `seen`."""
    real = os.path.realpath(folder)
    if real in seen or not os.path.isdir(folder):  # Path.is_dir raises in a closed folder
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: natural_key(entry.name))
    except OSError:
        yield folder
        return
    if marks(folder, entries):
        yield folder
        return
    for entry in entries:
        if not entry.name.startswith("."):
            yield from _walk(entry, marks, seen)
