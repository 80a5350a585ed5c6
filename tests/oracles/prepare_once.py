"""Runs `magiccolor prepare` and kills it: `python prepare_once.py OUT POINT.. -- ARGUMENTS`.

For each point a process of its own writes to OUT/POINT and dies there by kill -9; without
any, the run is whole.

in_shard    while the second shard is being written
after_shard when it is written and not noted
published   when train/ is there and held_out/ is not
reported    while the reports are written
finished    when the work is removed, which is the third folder that is
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from magiccolor_jax import cli  # noqa: E402
from magiccolor_jax.data import shards  # noqa: E402
from magiccolor_jax.prepare import chunks, preparing, summary  # noqa: E402

PLACES: dict[str, tuple[Any, str, int]] = {
    "in_shard": (shards, "_call", 6),
    "after_shard": (chunks, "write_shard", 2),
    "published": (chunks, "gather", 1),
    "reported": (summary, "_write", 2),
    "finished": (shutil, "rmtree", 3),
}
"""Function, and after which of its calls."""


def dying(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    left = [calls]

    def call(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return call


def main(out: Path, points: list[str], words: list[str]) -> None:
    assert preparing.run
    for point in points:
        child = os.fork()
        if not child:
            module, name, calls = PLACES[point]
            setattr(module, name, dying(getattr(module, name), calls))
            os._exit(100 + cli.run(["prepare", *words, "--out", str(out / point)]))
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (point, status)


if __name__ == "__main__":
    end = sys.argv.index("--")
    main(Path(sys.argv[1]), sys.argv[2:end], sys.argv[end + 1 :])
