"""What commands share that go through pictures one by one: their names, and the way through."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from magiccolor_jax.data.listing import Below, check_open, is_picture, look_below
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.files import is_disk_full, sha256_of

FAILURES = (ValueError, MemoryError, OSError, cv2.error)
"""What bad pictures raise."""


class Done(NamedTuple):
    """How a way through pictures ended."""

    made: int
    kept: int
    """Were there already."""
    failed: int


def name_pictures(paths: Iterable[Path], out: Path, own: Iterable[str]) -> dict[str, Path]:
    """Name of each picture: its file's, or its path below the folder that was walked, without
    suffix. A folder that cannot be listed stands among them, for its reader to report.

    Args:
        out: where results go.
        own: folders there whose pictures are not looked at.

    Raises:
        ValueError: there is none, a path is no picture, or two have one name.
    """
    found: dict[str, Path] = {}
    closed: dict[Path, str] = {}
    results = {_real(out / name) for name in own}
    for root in paths:
        is_file = os.path.isfile(root)
        if not os.path.exists(root) or (is_file and not is_picture(root)):
            raise ValueError(f"{root}: expected a picture or a folder of pictures")
        below = Below([root], []) if is_file else look_below(root, is_picture)
        for path in below.files:
            if path != root and results & {*_real(path).parents}:
                continue
            name = path.stem if path == root else path.relative_to(root).with_suffix("").as_posix()
            if _real(found.setdefault(name, path)) != _real(path):
                raise ValueError(
                    f"results are named after their pictures: {found[name]} and {path} would both "
                    f"be {name}; rename one, or use different --out folders"
                )
        for path in below.closed:
            if not results & {_real(path), *_real(path).parents}:
                closed[path] = _real(path).name if path == root else str(path.relative_to(root))
    for path, name in closed.items():
        found[str(path) if name in found else name] = path
    if not found:
        raise ValueError("no pictures: expected pictures, or folders of them")
    return found


def _real(path: Path) -> Path:
    """Where links lead in the end; a link that leads to itself stays, for its reader to report."""
    return Path(os.path.realpath(path))


def hash_picture(path: Path) -> str:
    """Hexadecimal SHA-256 of a picture's file.

    Raises:
        CaseError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise CaseError(
            path,
            "a picture can be read",
            expected="a file that may be read",
            got=error.strerror or str(error),
            fix="check the path and its permissions",
        ) from error


def open_output(out: Path) -> None:
    """Makes the folder of results, before work begins that could not be kept.

    Raises:
        ValueError: nothing can be written there.
        OSError: the disk is full.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        if is_disk_full(error):
            raise
        raise ValueError(
            f"{out}: results are written there: expected a folder, or a path where one can be "
            f"made, got {error.strerror or error}; choose another --out"
        ) from None


def work_through(
    pictures: dict[str, Path], one: Callable[[str, Path], str | None], console: Console
) -> Done:
    """Does one after another; those that fail are reported, and the rest go on.

    Args:
        one: of a name and its file makes what it says, as rich's markup; None where nothing was to
            be done.

    Raises:
        OSError: the disk is full.
    """
    made = failed = 0
    for name, path in track(pictures.items(), "pictures", console=console):
        try:
            check_open(path)
            said = one(name, path)
            made += said is not None
        except FAILURES as error:
            if is_disk_full(error):
                raise
            failed += 1
            said = f"[red]failed[/red] {escape(name)}: {escape(str(error))}"
        if said:
            console.print(said, soft_wrap=True, highlight=False)
    return Done(made, len(pictures) - made - failed, failed)
