"""Which files units read: each is read for one clip, whatever inputs or links lead to it."""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from magiccolor_jax.data.folders import FRAME_MASKS, MASKS
from magiccolor_jax.data.listing import is_picture, natural_key, walk
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.prepare.clips import Clip
from magiccolor_jax.prepare.stills import Group, Unit

MASK_FOLDERS = frozenset({MASKS, FRAME_MASKS, "sketch_masks", "reference_masks"})
"""Of cases and of the release's folders; several pictures may have one mask."""

Identity = tuple[int, int] | str
"""Tells a file from others: its device and inode, or its path without links."""


def read_once(listed: Sequence[Unit | Clip]) -> list[Unit | Clip]:
    """Each file under its first name. What reads one that another clip reads, where inputs overlap
    or a link leads to it, is left out, for it could be held out and trained on at the same time."""
    owners: dict[Identity, tuple[str, str]] = {}
    found: list[Unit | Clip] = []
    for each in listed:
        clip = each.clip if isinstance(each, Unit) else each.name
        me, twice = (clip, each.name), None
        paths = {_identity(path): path for path in (each.path, *_pictures_of(each))}
        for identity, path in paths.items():
            owner = owners.get(identity, me)
            # Units of one clip may share files: they are in one split.
            if owner[0] != clip or (path == each.path and owner != me):
                twice = twice or (path, owner[1])
        if twice:
            read = functools.partial(_again, each.path, *twice)
            each = Unit(each.name, each.name, each.kind, each.path, 1, each.provenance, read)
        else:
            owners.update((identity, me) for identity in paths if identity not in owners)
        found.append(each)
    return found


def _pictures_of(each: Unit | Clip) -> Iterable[Path]:
    """The pictures that are read of a folder; none for a file."""
    if not os.path.isdir(each.path):
        return []
    if each.kind == "frames":  # a folder below is a clip by itself
        try:
            entries = list(each.path.iterdir())
        except OSError:  # its reader will meet and report it
            return []
        return sorted(filter(is_picture, entries), key=lambda path: natural_key(path.name))
    found: list[Path] = []

    def collect(folder: Path, entries: Sequence[Path]) -> bool:
        if folder.name in MASK_FOLDERS:
            return True
        found.extend(filter(is_picture, entries))
        return False

    for _ in walk(each.path, collect):
        pass
    return found


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError:  # its reader will meet and report it
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _again(path: Path, file: Path, first: str) -> Group:
    """Raises CaseError: a file has been read under another name."""
    raise CaseError(
        path,
        "a file is read once",
        expected="one that no other input or link leads to",
        got=f"the same as {first}" if file == path else f"{file.name}, which {first} reads too",
        fix="nothing is to be done, unless this is the name that it should have",
    )
