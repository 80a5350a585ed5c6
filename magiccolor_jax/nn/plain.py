"""Programs written out plainly, so that their cost can be counted.

XLA's cost analysis counts the body of a loop once, sees nothing inside a kernel of Pallas or cuDNN,
and counts what rematerialisation computes again. Under `plain_programs` what is traced has none of
them. Such a program computes the same, but is meant to be analysed and not to be run: its attention
holds all [N L S] scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_programs() -> Iterator[None]:
    """For functions that are traced within the block, by this thread and for the first time.

    A jitted function keeps its trace: one that was called before, or is called again afterwards,
    must not be the one that is traced here.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether loops are to be written out, and nothing is to be computed twice."""
    return _plain.get()
