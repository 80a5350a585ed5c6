"""How the train state lies on the devices: two tables, and nothing else in the project decides it.

A parameter's path gives the logical axes of its last dimensions; the second table gives each
logical axis a mesh axis. Models know neither.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from magiccolor_jax.parallel.mesh import DATA
from magiccolor_jax.trees import decide

FSDP, TENSOR = "fsdp", "tensor"
AXES = (DATA, FSDP, TENSOR)

AnyMesh = Mesh | AbstractMesh

PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r".*/to_[qkv]/kernel", ("embed", "heads")),
    (r".*/to_out/kernel", ("heads", "embed")),
    (r".*/ff/proj_in/kernel", ("embed", "mlp")),
    (r".*/ff/proj_out/kernel", ("mlp", "embed")),
    (r".*/kernel", ("embed", "features")),
    (r".*/(bias|scale)", ()),
    (r"dinov2/.*", ()),
)
"""Regex over a path -> logical axes of the last dimensions; the ones before them lie whole."""

MESH_RULES: Mapping[str, str | None] = {
    "embed": FSDP,
    "heads": TENSOR,
    "mlp": TENSOR,
    "features": None,
}
"""Logical axis -> mesh axis; None: every device has all of it."""

BATCH_AXES = (DATA, FSDP)
"""Mesh axes that samples are dealt out over: ZeRO, not pipelining, is what `fsdp` means."""


def train_mesh(shape: tuple[int, int, int]) -> Mesh:
    """All devices of all processes as `data` x `fsdp` x `tensor`.

    Args:
        shape: sizes of the three axes; one of them may be -1: what is left.

    Raises:
        ValueError: their product is not the number of devices.
    """
    devices = jax.devices()
    known = max(prod(size for size in shape if size != -1), 1)
    sizes = tuple(len(devices) // known if size == -1 else size for size in shape)
    if list(shape).count(-1) > 1 or prod(sizes) != len(devices) or min(sizes) < 1:
        raise ValueError(
            "mesh: data x fsdp x tensor must use every device: expected a product of "
            f"{len(devices)} (one size may be -1), got {shape}"
        )
    return Mesh(mesh_utils.create_device_mesh(sizes, devices), AXES)


def imagined_mesh(shape: tuple[int, int, int]) -> AbstractMesh:
    """`train_mesh` of devices that are not here, to see how a training would lie on them.

    Raises:
        ValueError: a size is left open.
    """
    if min(shape) < 1:
        raise ValueError(
            f"mesh: devices that are not here need every size: expected data, fsdp and tensor of "
            f"at least 1, got {shape}"
        )
    return AbstractMesh(shape, AXES)


def parameter_specs(shapes: Mapping[str, tuple[int, ...]], mesh: AnyMesh) -> dict[str, P]:
    """Path -> how the parameter is cut.

    A dimension that its mesh axis does not divide evenly lies whole: the 3 channels of a picture
    and the 4 of a latent are not worth padding.

    Raises:
        ValueError: a path that no row of `PARAMETER_AXES` matches.
    """
    axes = decide(PARAMETER_AXES, shapes, "sharding")
    return {path: _spec(shapes[path], axes[path], mesh) for path in shapes}


def _spec(shape: tuple[int, ...], logical: tuple[str, ...], mesh: AnyMesh) -> P:
    names = [None] * (len(shape) - len(logical)) + [MESH_RULES[axis] for axis in logical]
    pairs = zip(names, shape, strict=True)
    return P(*(n if n is not None and size % mesh.shape[n] == 0 else None for n, size in pairs))


def state_shardings(state: Any, shapes: Mapping[str, tuple[int, ...]], mesh: AnyMesh) -> Any:
    """Shardings of a train state whose dicts are keyed by the paths of parameters.

    What lies under a parameter's path and has its shape is cut as the parameter is: the parameters
    themselves, their moments and their average. All else (Adafactor's rows and columns) lies whole.

    Args:
        state: arrays, or their shapes.
        shapes: of the parameters, by path.
    """
    specs = parameter_specs(shapes, mesh)

    def place(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        named = keys and isinstance(keys[-1], jax.tree_util.DictKey)
        path = str(keys[-1].key) if named else ""
        alike = path in shapes and leaf.shape == shapes[path]
        return NamedSharding(mesh, specs[path] if alike else P())

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Samples dealt out over the devices."""
    return NamedSharding(mesh, P(BATCH_AXES))
