"""Moving more bytes than memory holds: threads, memory used again, progress, room on the disk."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped

Item = TypeVar("Item")
Made = TypeVar("Made")

WORKERS = 2
"""Files that are read, turned and written at the same time, each by a thread."""


class Arena:
    """Memory for the arrays of one tensor, used again for the next.

    The n-th array after a `clear` lies where the n-th array before it lay: fresh pages would cost
    as much time as the copies into them.
    """

    def __init__(self, stop: Event | None = None):
        self._stop = stop
        self._blocks: list[np.ndarray] = []
        self._used = 0

    def clear(self) -> None:
        """Takes back what was given.

        Raises:
            CancelledError: the work that it serves was told to stop.
        """
        if self._stop and self._stop.is_set():
            raise CancelledError
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
        """An array of undefined content, valid until `clear`."""
        nbytes = math.prod(shape) * dtype.itemsize
        if self._used == len(self._blocks):
            self._blocks.append(np.empty(nbytes, np.uint8))
        elif self._blocks[self._used].nbytes < nbytes:
            self._blocks[self._used] = np.empty(nbytes, np.uint8)
        block = self._blocks[self._used][:nbytes]
        self._used += 1
        return block.view(dtype).reshape(shape)


def in_parallel(
    work: Callable[[Item, Arena], Made], items: Sequence[Item], size: Callable[[Item], int]
) -> list[Made]:
    """`work(item, arena)` of every item by a few threads, the largest items first.

    Args:
        work: calls `arena.clear()` before each tensor, where it stops if another one has failed.

    Returns:
        What the works return, in the order of the items.

    Raises:
        Exception: what a work raised; the others have then stopped.
    """
    stop = Event()
    with ThreadPoolExecutor(WORKERS) as pool:
        ordered = sorted(range(len(items)), key=lambda index: -size(items[index]))
        futures = {index: pool.submit(work, items[index], Arena(stop)) for index in ordered}
        try:
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [futures[index].result() for index in range(len(items))]


@contextmanager
def byte_progress(title: str, total: int, *, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar with MB/s on standard error; yields the function that adds bytes to it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)


def check_space(output: Path, needed: int) -> None:
    """Refuses to start what cannot end.

    Args:
        output: a path that may not exist yet.
        needed: bytes.

    Raises:
        OSError: the output's disk has less room than that.
    """
    existing = existing_parent(output)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{output}: needs {gigabytes(needed)} of disk, but {existing} has {gigabytes(free)} "
            "free: make room or choose an output on another disk"
        )


def existing_parent(path: Path) -> Path:
    """The folder above `path` that is there."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def gigabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
