"""Moving more bytes than memory holds: look-ahead, progress, room on the disk."""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

WORKERS = 2
"""Threads that prepare tensors while the caller writes; also how many wait in memory."""


def prefetch(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make(item)` of each item, in order, prepared by threads a few items ahead.

    Raises:
        Exception: whatever `make` raises, at the item's turn.
    """
    waiting = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


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
    existing = next(parent for parent in output.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{output}: needs {gigabytes(needed)} of disk, but {existing} has {gigabytes(free)} "
            "free: make room or choose an output on another disk"
        )


def gigabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
