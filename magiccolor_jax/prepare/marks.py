"""What tells files from others, and errors that pass from those of bad files."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from magiccolor_jax.data.listing import digest, is_picture, walk

PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOTCONN})
"""Numbers of the system's errors that say nothing of a file: a disk, a network, too many files."""


class StoppedError(OSError):
    """Work cannot go on now; the same command goes on later."""


def mark_of(path: Path, aside: Iterable[Path]) -> str:
    """Tells a file from others by its size, and a folder by its pictures' names and sizes.

    Args:
        aside: folders below which nothing counts.

    Raises:
        OSError: it cannot be looked at.
    """
    left_out = {os.path.realpath(folder) for folder in aside} - {os.path.realpath(path)}
    if os.path.isfile(path):
        return str(path.stat().st_size)
    marks: list[str] = []

    def collect(folder: Path, entries: Sequence[Path]) -> bool:
        if os.path.realpath(folder) in left_out:
            return True
        files = (entry for entry in entries if is_picture(entry) and os.path.isfile(entry))
        marks.extend(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)
        return False

    for _ in walk(path, collect):
        pass
    return digest(marks)


class Watch(NamedTuple):
    """What was listed, by which bad files are told from such as have gone."""

    marks: Mapping[Path, str]
    aside: Sequence[Path]
    """As of `mark_of`."""

    def check(self, path: Path, error: BaseException | None) -> None:
        """Does nothing where a file, or a folder, is bad by itself.

        Args:
            path: one of `marks`.
            error: what reading it raised; None: parts of it are bad.

        Raises:
            StoppedError: it has gone or changed, or the error may pass; the work has to stop, for
                otherwise what is good would be left out for ever.
        """
        reason = passing(error)
        if reason:
            raise StoppedError(
                f"{path}: a picture is left out where it is bad itself: expected to read it, got "
                f"{reason}; mend that (of memory, fewer --workers need less), the same command "
                "goes on"
            ) from error
        try:
            now = mark_of(path, self.aside)
        except OSError as unseen:
            now = unseen.strerror
        if now != self.marks[path]:
            raise StoppedError(
                f"{path}: inputs stay as they are while they are read: expected what was listed, "
                f"got {'another' if path.exists() else 'nothing there'}; put it back as it was, "
                "the same command goes on"
            ) from error


def passing(error: BaseException | None) -> str:
    """What an error says that may pass; empty for one that is the file's."""
    for each in _causes(error):
        if isinstance(each, MemoryError) or getattr(each, "code", None) == cv2.Error.StsNoMem:
            return "too little memory"
        if isinstance(each, OSError) and each.errno in PASSING and not _is_decoders(each):
            return each.strerror or str(each)
    return ""


def is_systems(error: BaseException) -> bool:
    """Whether the system raised an error, not a decoder."""
    return any(
        isinstance(each, OSError) and each.errno is not None and not _is_decoders(each)
        for each in _causes(error)
    )


def _is_decoders(error: OSError) -> bool:
    """FFmpeg calls damage EIO too."""
    return type(error).__module__.split(".")[0] == "av"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
