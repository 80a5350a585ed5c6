"""A run's folder: one training at a time, and the same folder for all of its processes."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

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
    with (run / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{run}: a folder holds one training at a time: expected no other, got "
                f"{file.read().strip()}; wait until it has ended, or choose another --out"
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
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
