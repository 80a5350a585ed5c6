"""Work on threads beside the main one: reading ahead of it and writing behind it."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(8, os.cpu_count() or 1)
"""Threads that read; decoding and resizing leave Python's lock."""


def threaded_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
    workers: int = WORKERS,
) -> Iterator[Result]:
    """Results of `function`, in order; items are taken lazily, at most `ahead` before they are due.

    Whatever was begun is finished when the consumer or `items` ends early.

    Raises:
        Exception: what `function` raised, in the place of its result.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        queue: deque[Future[Result]] = deque()
        for item in items:
            queue.append(pool.submit(function, item))
            while queue and (len(queue) > ahead or queue[0].done()):
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
