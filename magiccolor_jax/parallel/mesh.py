"""Device meshes. Inference knows one axis: `data`, over which cases are dealt out."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All of this process' devices (or the given ones) along `data`."""
    return Mesh(np.array(devices or jax.local_devices()), (DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device: parameters."""
    return NamedSharding(mesh, P())


def by_case(mesh: Mesh) -> NamedSharding:
    """The leading axis dealt out over `data`: batches."""
    return NamedSharding(mesh, P(DATA))
