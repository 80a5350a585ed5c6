"""`--dry-run`: what a training would hold, where, and how large; nothing is allocated."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.precision import for_inference
from magiccolor_jax.training.initial import frozen_names
from magiccolor_jax.training.setup import Start

BILLION = 1e9


def show(start: Start, console: Console) -> None:
    """Prints parameters by network, memory per device, and every parameter's place."""
    console.print(_networks(start))
    console.print(_memory(start))
    console.print(_places(start))


def _networks(start: Start) -> Table:
    design = start.design
    table = Table("network", "parameters", "trained", "share", title="Parameters, millions")
    counts: dict[str, list[float]] = {}
    for path, leaf in design.parameters.items():
        row = counts.setdefault(path.split("/", 1)[0], [0, 0])
        row[0] += leaf.size
        row[1] += leaf.size * (path in design.trainable)
    for file in frozen_files(start):
        size = sum(prod(s) for s in parameter_shapes(start.source.networks[file]).values())
        counts[file] = [size, 0]
    whole = [sum(row[i] for row in counts.values()) for i in (0, 1)]
    for name, (size, trained) in [*counts.items(), ("all", whole)]:
        cells = f"{size / 1e6:.3g}", f"{trained / 1e6:.3g}", f"{trained / max(size, 1):.0%}"
        table.add_row(name, *cells)
    return table


def frozen_files(start: Start) -> Iterable[str]:
    """Files of the frozen networks that the training reads."""
    config = start.design.config
    return frozen_names(config.recipe, config.stage).values()


def memory_rows(start: Start) -> dict[str, tuple[float, float]]:
    """What lasts over a step: name -> GB on all devices together, GB on one.

    Activations are not among it: they depend on batch, page and remat; `--report.profile` or the
    metric `memory_gb` of a first step tells.
    """
    design = start.design
    state, places = design.state, design.shardings
    rows = {
        "trained parameters": _size(state.trainable, places.trainable),
        "fixed parameters": _size(design.fixed, design.parameter_shardings()),
        "optimiser": _size(state.optimizer, places.optimizer),
        "average": _size(state.average, places.average),
        "gradients": _gradients(start),
    }
    compute = for_inference(design.config.precision)
    shapes = [parameter_shapes(start.source.networks[file]) for file in frozen_files(start)]
    count = sum(prod(shape) for network in shapes for shape in network.values())
    frozen = count * jax.numpy.dtype(compute.param_dtype).itemsize / BILLION
    return rows | {"frozen networks": (frozen * design.mesh.size, frozen)}


def _gradients(start: Start) -> tuple[float, float]:
    """In f32 where they are added up over parts of a batch."""
    design = start.design
    slopes = design.state.trainable
    if design.config.accumulate > 1:
        slopes = {
            path: jax.ShapeDtypeStruct(leaf.shape, jax.numpy.float32)
            for path, leaf in slopes.items()
        }
    return _size(slopes, design.shardings.trainable)


def _memory(start: Start) -> Table:
    rows = memory_rows(start)
    sizes = start.design.mesh.shape
    title = "Memory, GB, on a mesh of " + " x ".join(f"{k} {v}" for k, v in sizes.items())
    table = Table("what lasts over a step", "all devices", "each device", title=title)
    total = tuple(sum(row[i] for row in rows.values()) for i in (0, 1))
    for name, (everywhere, each) in [*rows.items(), ("all", total)]:
        table.add_row(name, f"{everywhere:.3g}", f"{each:.3g}")
    return table


def _size(shapes: Any, places: Any) -> tuple[float, float]:
    """(GB on all devices together, GB on one)."""
    whole = each = 0.0
    for leaf, place in _places_of(shapes, places):
        part = prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize / BILLION
        each, whole = each + part, whole + part * place.mesh.size
    return whole, each


def _places_of(shapes: Any, places: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(shapes, Mapping) and isinstance(places, Mapping):
        return [(leaf, places[path]) for path, leaf in shapes.items()]
    return zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True)


def _places(start: Start) -> Table:
    design = start.design
    table = Table("parameter", "shape", "type", "trained", "cut along", title="Shardings")
    places = design.parameter_shardings()
    for path, leaf in design.parameters.items():
        spec = ", ".join(str(axis) if axis else "-" for axis in places[path].spec)
        shape = " ".join(map(str, leaf.shape))
        trained = "yes" if path in design.trainable else "no"
        table.add_row(path, shape, str(leaf.dtype), trained, spec or "-")
    return table
