"""A run's folder: one training at a time, and the same folder for all of its processes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from magiccolor_jax.files import locked

LOCK = ".lock"


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Keeps other trainings out of a run's folder; the system lets go of it when this one dies.

    Raises:
        ValueError: another training is in it.
    """
    if jax.process_index() > 0:
        yield
        return
    with locked(run / LOCK, "training"):
        yield


def check_shared(run: Path) -> None:
    """Makes sure that all processes mean the same folder.

    Raises:
        ValueError: this process does not see what the first one wrote.
    """
    if jax.process_count() == 1:
        return
    drawn = np.random.default_rng().integers(2**31, dtype=np.int32)
    token = run / f".seen_{int(multihost_utils.broadcast_one_to_all(drawn))}"
    if jax.process_index() == 0:
        token.touch()
    multihost_utils.sync_global_devices("token written")
    seen = token.exists()
    multihost_utils.sync_global_devices("token looked at")
    if jax.process_index() == 0:
        token.unlink()
    if not seen:
        raise ValueError(
            f"{run}: all processes must see the same folder: expected {token.name}, which process "
            f"0 wrote, got nothing on {socket.gethostname()}; mount one file system for --out"
        )
