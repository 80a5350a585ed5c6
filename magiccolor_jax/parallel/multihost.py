"""Several processes: inference shares items out and never talks, training joins its devices."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

Item = TypeVar("Item")

CLUSTERS = {
    "SLURM": ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_NTASKS"),
    "Open MPI": ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
    "Kubernetes": ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
    "TPU multislice": ("MEGASCALE_COORDINATOR_ADDRESS",),
    "TPU pod": ("TPU_PROCESS_ADDRESSES",),
    "TPU pod by host names": ("TPU_WORKER_HOSTNAMES",),
    "JAX": ("JAX_COORDINATOR_ADDRESS",),
}
"""Variables that must all be there for `jax.distributed` to read a cluster. SLURM's are those of a
step: a batch script without srun is one process, whatever its job asked for."""

PROCESS_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Those that hold a number of processes."""

PROCESS_LISTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
"""Those that list the processes, between commas."""

TPU_CHIPS = ("accel*", "vfio/[0-9]*")
"""Devices of a TPU machine, below /dev."""


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
        if self.coordinator is None or self.processes is None or self.process is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(
                f"distributed: coordinator must be HOST:PORT of process 0, got {self.coordinator!r}"
            )
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"distributed: process must be 0 to {self.processes - 1} of {self.processes}, got "
                f"{self.process}"
            )


def connect(config: Distributed) -> None:
    """Joins the other processes of a training, if there are any; before any device is touched.

    Raises:
        ValueError: the cluster says that there are others, but not where.
    """
    if config.coordinator is not None:
        try:
            jax.distributed.initialize(config.coordinator, config.processes, config.process)
        except RuntimeError as error:
            raise ValueError(
                f"distributed: process {config.process} of {config.processes} cannot join the "
                f"others at {config.coordinator}: {error}. Expected process 0 to listen there: "
                "check the address, the port, and that all processes have started"
            ) from None
        return
    cluster = find_cluster(os.environ)
    if cluster is None and not on_tpu():
        return
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError, ImportError) as error:
        if cluster is None:  # a TPU machine that no metadata server speaks of stands alone
            return
        raise ValueError(
            f"distributed: the environment is {cluster}'s ({', '.join(CLUSTERS[cluster])}): "
            f"expected it to say where process 0 is, got: {error}. Give "
            "--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I "
            "(Kubernetes: or pip install 'jax[k8s]'), or unset these variables to train alone"
        ) from None


def find_cluster(environment: Mapping[str, str]) -> str | None:
    """The cluster whose variables speak of several processes."""

    def several(name: str) -> bool:
        value = environment.get(name, "")
        if name in PROCESS_COUNTS:
            return value.isdigit() and int(value) > 1
        return "," in value if name in PROCESS_LISTS else bool(value)

    return next((kind for kind, names in CLUSTERS.items() if all(map(several, names))), None)


def on_tpu() -> bool:
    """Whether TPUs are here: JAX asks their machine's metadata server for the other hosts."""
    chips = any(any(Path("/dev").glob(pattern)) for pattern in TPU_CHIPS)
    return chips and find_spec("libtpu") is not None
