"""Several processes: inference shares items out and never talks, training joins its devices."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax

Item = TypeVar("Item")

PROCESS_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Numbers of processes, in SLURM's and Open MPI's words."""

CLUSTER_NAMES = ("MEGASCALE_COORDINATOR_ADDRESS", "JAX_COORDINATOR_ADDRESS", "JOB_COMPLETION_INDEX")
"""What TPU multislices, JAX's own launchers and indexed Kubernetes jobs set."""


class Share(NamedTuple):
    """Process `index` of `count`."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Items i with i mod count == index."""
        return list(items[self.index :: self.count])


def share(text: str | None) -> Share:
    """Reads `I/N` (process I of N, from 0); without it, what jax.distributed knows.

    Raises:
        ValueError: not of that form, or I is not below N.
    """
    if text is None:
        return Share(jax.process_index(), jax.process_count())
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"process must be I/N with 0 <= I < N (such as 0/4), got {text!r}")
    return Share(int(index), int(count))


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """How the processes of one training find each other."""

    coordinator: str | None = None
    """HOST:PORT of process 0; None: what the cluster says (TPU pods, SLURM, Kubernetes, MPI)."""
    processes: int | None = None
    """Number of processes, with `coordinator`."""
    process: int | None = None
    """This one's number, from 0, with `coordinator`."""

    def __post_init__(self):
        given = [x is not None for x in (self.coordinator, self.processes, self.process)]
        if any(given) and not all(given):
            raise ValueError(
                "distributed: coordinator, processes and process go together: expected all or "
                f"none, got {self}"
            )


def connect(config: Distributed) -> None:
    """Joins the other processes of a training, if there are any; before any device is touched.

    Raises:
        ValueError: the cluster says that there are others, but not where.
    """
    if config.coordinator is not None:
        jax.distributed.initialize(config.coordinator, config.processes, config.process)
    elif in_cluster(os.environ):
        jax.distributed.initialize()


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment speaks of several processes, in a way that JAX can read."""
    counts = [environment.get(name, "") for name in PROCESS_COUNTS]
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    several = any(count.isdigit() and int(count) > 1 for count in counts)
    return several or len(hosts) > 1 or any(name in environment for name in CLUSTER_NAMES)
