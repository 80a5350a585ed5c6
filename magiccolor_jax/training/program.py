"""A training as programs: what lies where, and the compiled step. jit is applied here alone."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from magiccolor_jax.conditioning.assemble import Encoders
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.losses.objective import Frozen, Keys, Objective
from magiccolor_jax.models.magiccolor import MagicColor, MagicColorConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.parallel.sharding import (
    AnyMesh,
    batch_sharding,
    parameter_specs,
    state_shardings,
)
from magiccolor_jax.precision import for_training
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.cost import peak_flops, step_cost
from magiccolor_jax.training.optim import make_optimizer
from magiccolor_jax.training.parameters import Layout, Parameters
from magiccolor_jax.training.step import (
    Metrics,
    StepContext,
    TrainState,
    first_state,
    train_step,
)
from magiccolor_jax.types import TrainingBatch

THRIFTY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""On CPU, XLA orders operations for concurrency, which takes twice the memory of this order."""


class Constants(NamedTuple):
    """What a step reads and never changes."""

    fixed: Parameters
    """The model's parameters that this stage does not train."""
    frozen: Any
    """Values of the frozen networks, and the null contexts."""


class Design:
    """A training without its numbers: shapes, shardings, what is trained. Allocates nothing."""

    def __init__(
        self, config: TrainConfig, sizes: MagicColorConfig, schedule: Schedule, mesh: AnyMesh
    ):
        """Raises:
        ValueError: the stage trains nothing, or a table has no row for a parameter.
        """
        self.config, self.mesh = config, mesh
        self.precision = for_training(config.parameters, config.precision)
        self.sizes = _run_as(sizes, remat=config.remat, **self.precision._asdict())
        model: Any = abstract(MagicColor, self.sizes)
        self.layout = Layout(model)
        self.parameters = self.layout.shapes(model)
        self.trainable, self.fixed = config.stage.split(self.parameters)
        self.context = StepContext(
            layout=self.layout,
            loss=Objective(config.stage.losses, config.recipe, schedule),
            optimizer=make_optimizer(config.optim, self.trainable, config.steps),
            steps=config.steps,
            accumulate=config.accumulate,
            average_decay=config.average,
        )
        self.state = jax.eval_shape(partial(first_state, self.context), self.trainable)
        shapes = {path: leaf.shape for path, leaf in self.parameters.items()}
        self.shardings = state_shardings(self.state, shapes, mesh)
        self.whole = NamedSharding(mesh, P())
        self.batches = batch_sharding(mesh)
        self._specs = parameter_specs(shapes, mesh)

    def parameter_shardings(self) -> dict[str, NamedSharding]:
        """Path -> where it lies, of every parameter of the model."""
        return {path: NamedSharding(self.mesh, spec) for path, spec in self._specs.items()}

    def rows(self) -> range:
        """Rows of a batch that this process needs.

        Raises:
            ValueError: the devices do not divide the batch, or a part of an accumulated one.
        """
        count, pieces = self.config.batch, self.config.accumulate
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        if count % (ways * pieces):
            raise ValueError(
                f"training: batch must be a multiple of data x fsdp x accumulate: expected a "
                f"multiple of {ways} x {pieces}, got {count}"
            )
        assert isinstance(self.mesh, Mesh), "devices that are not here read nothing"
        places = self.batches.addressable_devices_indices_map((count,))
        parts = [place[0] for place in places.values() if place is not None]
        needed = sorted({row for part in parts for row in range(*part.indices(count))})
        assert needed == list(range(needed[0], needed[-1] + 1)), "processes own adjacent rows"
        return range(needed[0], needed[-1] + 1)


def begin(design: Design, trainable: Parameters) -> TrainState:
    """The state before the first step, born where it lies; the parameters are given away."""
    first = partial(first_state, design.context)
    return jax.jit(first, out_shardings=design.shardings, donate_argnums=0)(trainable)


class Program:
    """The compiled step and what it reads."""

    def __init__(self, design: Design, fixed: Parameters, frozen: Frozen):
        """Args:
        fixed: `design.fixed`, with their values.
        """
        self.design = design
        nets = {
            "vae": frozen.encoders.vae,
            "clip": frozen.encoders.clip,
            "dinov2": frozen.dinov2,
            "vgg": frozen.vgg,
        }
        self._graph, values = nnx.split(nets)
        there = jax.device_put((values, frozen.nulls), design.whole)
        self.constants = Constants(fixed, there)
        self._seen: set[Any] = set()
        self._flops: dict[Any, float] = {}
        self._key = jax.random.key(design.config.seed)
        thrifty = design.config.remat and jax.default_backend() == "cpu"
        self._step = jax.jit(
            self._run_step,
            out_shardings=(design.shardings, design.whole),
            donate_argnums=1,
            compiler_options=THRIFTY if thrifty else None,
        )
        self._loss = jax.jit(self._run_loss, out_shardings=design.whole)

    def step(self, state: TrainState, batch: TrainingBatch) -> tuple[TrainState, Metrics]:
        """One step; `state` is given away."""
        return self._step(self.constants, state, batch, self._key)

    def compile(self, state: TrainState, batch: TrainingBatch) -> jax.stages.Compiled:
        """The program of `step` for batches of this shape, to be looked at."""
        return self._step.lower(self.constants, state, batch, self._key).compile()

    def utilisation(self, batch: TrainingBatch, seconds: float) -> dict[str, float]:
        """Share of the devices' peak that steps of this shape reach; empty where no peak is known.

        Args:
            seconds: per step.
        """
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak is None:
            return {}
        shape = _shape_of(batch)
        if shape not in self._flops:
            design, constants = self.design, self.constants
            frozen = jax.eval_shape(self.frozen, constants.frozen)
            cost = step_cost(design.context, constants.fixed, frozen, design.state, batch)
            self._flops[shape] = cost.flops
        return {"utilisation": self._flops[shape] / seconds / peak / self.design.mesh.size}

    def loss(self, values: Parameters, batch: TrainingBatch, number: int) -> Metrics:
        """Loss terms of a batch without a step; the same number draws the same noise.

        Args:
            values: of the trained parameters.
        """
        key = jax.random.fold_in(jax.random.key(0), number)
        return self._loss(self.constants, values, batch, key)

    def is_new(self, batch: TrainingBatch) -> bool:
        """Whether batches of this shape are seen for the first time: the step will be compiled."""
        shape = _shape_of(batch)
        new = shape not in self._seen
        self._seen.add(shape)
        return new

    def put(self, rows: TrainingBatch) -> TrainingBatch:
        """This process' rows of a batch -> the batch of all processes, on the devices."""
        first, count = self.design.rows()[0], self.design.config.batch

        def place(x: np.ndarray) -> Array:
            def part(index):
                begin, end, _ = index[0].indices(count)
                return x[begin - first : end - first]

            return jax.make_array_from_callback((count, *x.shape[1:]), self.design.batches, part)

        return jax.tree.map(place, rows)

    def frozen(self, values: Any) -> Frozen:
        """Networks from the values that programs pass on."""
        state, nulls = values
        nets = nnx.merge(self._graph, state)
        return Frozen(Encoders(nets["vae"], nets["clip"]), nets["dinov2"], nulls, nets["vgg"])

    def _run_step(self, constants, state, batch, key):
        frozen = self.frozen(constants.frozen)
        return train_step(self.design.context, constants.fixed, frozen, state, batch, key)

    def _run_loss(self, constants, values, batch, key):
        model = self.design.layout.build(constants.fixed | values)
        frozen = self.frozen(constants.frozen)
        arguments = model, frozen, batch, Keys.split(key), jnp.ones(())
        return self.design.context.loss(*arguments)[1]


def _shape_of(batch: TrainingBatch) -> tuple[tuple[int, ...], ...]:
    return tuple(x.shape for x in jax.tree.leaves(batch))


def _run_as(sizes: MagicColorConfig, **options: Any) -> MagicColorConfig:
    """The same networks, run in another way."""
    changed = {}
    for item in dataclasses.fields(sizes):
        cfg = getattr(sizes, item.name)
        if cfg is not None:
            known = {f.name for f in dataclasses.fields(cfg)}
            chosen = {k: v for k, v in options.items() if k in known}
            changed[item.name] = dataclasses.replace(cfg, **chosen)
    return dataclasses.replace(sizes, **changed)
