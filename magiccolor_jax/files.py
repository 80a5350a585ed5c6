"""Atomic writes: a crash at any point leaves the last good file or folder. Locks, hashes."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors after which nothing else can be written either."""

NAME_SHOWN = 40
"""Letters of a name that its temporary one shows: up to 4 bytes each, of 255 in all."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room."""
    return isinstance(error, OSError) and error.errno in DISK_FULL


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it there when the block ends well.

    Raises:
        OSError: from the block or the rename; the temporary file is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; renames it there when the block ends well.

    Raises:
        FileExistsError: `path` exists (nothing is ever merged or overwritten).
    """
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path}: the output folder must not exist yet; remove it or choose another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Beginning of temporary names beside a path, which must not be too long where its is not."""
    return f".{path.name[:NAME_SHOWN]}."


def remove_directory(path: Path) -> None:
    """Removes a folder with all in it; a crash leaves it whole, or what `remove_rests` removes.

    Raises:
        OSError: it is no folder, or the one above cannot be written.
    """
    temporary = tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
    try:
        path.rename(temporary)  # in the place of an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_rests(folder: Path, pattern: str = ".*.tmp") -> None:
    """Removes from a folder what a run that died was writing there; no other may be at work.

    Args:
        pattern: of the names that are looked at, where others may have such files there.
    """
    for path in folder.glob(pattern):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_rests_below(folder: Path, whole: str | None = None) -> None:
    """`remove_rests` of a folder and of those below.

    Args:
        whole: name of the file that a finished folder has; into such a one nobody writes.
    """
    for path, below, files in os.walk(folder):
        if whole in files:
            below.clear()
            continue
        remove_rests(Path(path))
        below[:] = [name for name in below if not name.startswith(".")]


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Keeps other runs out while the block lasts; the system lets go when this process dies.

    On a file system without locks it keeps nobody out.

    Args:
        path: a file beside what is protected, made where it is missing.
        what: a run's name in the error.

    Raises:
        ValueError: another run is in it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{path.parent}: a folder holds one {what} at a time: expected no other, got "
                f"{file.read().strip()}; wait until it has ended, or choose another --out"
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout."""
    folder = Path(__file__).parents[1]
    text = version("magiccolor_jax")
    if (folder / ".git").exists():
        words = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
        try:
            found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return text
        text += f"+{found.stdout.strip()}"
    return text


def _umask() -> int:
    """The process' umask: files from `tempfile` ignore it, ours should not."""
    current = os.umask(0)
    os.umask(current)
    return current


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name: a hard link, or a copy where there can be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(os.path.realpath(source))  # a link itself would lead elsewhere
    except OSError:
        shutil.copyfile(source, target)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
