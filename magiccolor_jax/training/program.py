"""A training as programs: what lies where, and the compiled step. jit is applied here alone."""

import contextlib
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
from magiccolor_jax.training.reports import Lap
from magiccolor_jax.training.step import (
    Metrics,
    StepContext,
    TrainState,
    add_part,
    first_state,
    no_part,
    step_update,
    train_step,
)
from magiccolor_jax.types import TrainingBatch

THRIFTY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""On CPU, XLA orders operations for concurrency: it widens all parameters to f32 long before they
are used. In this order a step at the released sizes takes 8 GB of temporaries, not 20."""


VALIDATION = 0x5EED
"""Key of the held-out batches' noise: not a training's, which is its seed."""


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
        ValueError: the stage trains nothing, a table has no row for a parameter, or the devices do
            not divide the batch, or a part of an accumulated one.
        """
        self.config, self.mesh = config, mesh
        self.ways = mesh.shape["data"] * mesh.shape["fsdp"]
        """Devices that samples are dealt out over."""
        if config.batch % (self.ways * config.accumulate):
            raise ValueError(
                f"training: batch must be a multiple of data x fsdp x accumulate: expected a "
                f"multiple of {self.ways} x {config.accumulate}, got {config.batch}"
            )
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

    def rows(self, count: int) -> list[int]:
        """Rows of a batch of this size that this process needs."""
        assert isinstance(self.mesh, Mesh), "devices that are not here read nothing"
        places = self.batches.addressable_devices_indices_map((count,))
        parts = [place[0] for place in places.values() if place is not None]
        return sorted({row for part in parts for row in range(*part.indices(count))})


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
        # By way of the host: what one device computed cannot be put onto other processes'.
        nulls = jax.tree.map(np.asarray, frozen.nulls)
        there = jax.device_put((values, nulls), design.whole)
        self.constants = Constants(fixed, there)
        self._seen: set[Any] = set()
        self._flops: dict[Any, float] = {}
        self._peak = peak_flops(jax.devices()[0].device_kind)
        self.key = jax.random.key(design.config.seed)
        thrifty = design.config.remat != "off" and jax.default_backend() == "cpu"
        options: Any = THRIFTY if thrifty else None
        self._step = jax.jit(
            self._run_step,
            out_shardings=(design.shardings, design.whole),
            donate_argnums=1,
            compiler_options=options,
        )
        self._apart = self._goes_apart()
        spread = design.shardings.trainable, design.whole
        self._nothing = jax.jit(self._run_nothing, out_shardings=spread)
        self._part = jax.jit(
            self._run_part, out_shardings=spread, donate_argnums=1, compiler_options=options
        )
        self._update = jax.jit(
            partial(step_update, design.context),
            out_shardings=(design.shardings, design.whole),
            donate_argnums=0,
        )
        self._loss = jax.jit(self._run_loss, out_shardings=design.whole)

    def step(self, state: TrainState, batch: TrainingBatch) -> tuple[TrainState, Metrics]:
        """One step; `state` is given away."""
        if not self._apart:
            return self._step(self.constants, state, batch, self.key)
        given = state.trainable, state.step, batch, self.key
        total = self._nothing(self.constants, *given)
        for number in range(self.design.config.accumulate):
            total = self._part(self.constants, total, *given, np.int32(number))
        gradient, metrics = total
        state, norm = self._update(state, gradient)
        return state, metrics | {"grad_norm": norm}

    def _goes_apart(self) -> bool:
        """Whether a step is several programs: each part of the batch, and the update.

        Muon's update has more operations than the gradient; apart, it is compiled once, not anew
        for each shape of batches. On CPU, XLA leaves convolutions' gradients inside of loops as
        they come, which takes 7 to 25 times as long: parts are better not a loop of one program.
        All others gain by one program: gradients need not be kept in f32.
        """
        config = self.design.config
        in_parts = config.accumulate > 1 and jax.default_backend() == "cpu"
        return in_parts or config.optim.kind == "muon"

    def compile(self, state: TrainState, batch: TrainingBatch) -> jax.stages.Compiled:
        """The step for batches of this shape as one program, to be looked at; called with
        `constants`, `state`, `batch` and `key` it does what `step` does."""
        return self._step.lower(self.constants, state, batch, self.key).compile()

    def flops(self, batch: TrainingBatch) -> float:
        """Floating-point operations of a step of this shape; 0 where they would tell nothing: the
        devices' peak is not known, or JAX_PLATFORMS hides the CPU, which does the counting."""
        shape = _shape_of(batch)
        if shape not in self._flops:
            design, constants = self.design, self.constants
            cost = 0.0
            if self._peak:
                frozen = jax.eval_shape(self.frozen, constants.frozen)
                shapes = design.context, constants.fixed, frozen, design.state, batch
                with contextlib.suppress(RuntimeError):
                    cost = step_cost(*shapes).flops
            self._flops[shape] = cost
        return self._flops[shape]

    def utilisation(self, lap: Lap) -> dict[str, float]:
        """Share of the devices' peak that steps reached; empty where it is not known."""
        if not (self._peak and lap.work):
            return {}
        return {"utilisation": lap.work / lap.seconds / self._peak / self.design.mesh.size}

    def loss(self, values: Parameters, batch: TrainingBatch, number: int) -> Metrics:
        """Loss terms of a batch without a step; the same number draws the same noise.

        Args:
            values: of the trained parameters.
        """
        key = jax.random.fold_in(jax.random.key(VALIDATION), number)
        return self._loss(self.constants, values, batch, key)

    def is_new(self, batch: TrainingBatch) -> bool:
        """Whether batches of this shape are seen for the first time: the step will be compiled."""
        shape = _shape_of(batch)
        new = shape not in self._seen
        self._seen.add(shape)
        return new

    def put(self, rows: TrainingBatch, count: int | None = None) -> TrainingBatch:
        """This process' rows of a batch -> the batch of all processes, on the devices.

        Args:
            count: rows of all processes; default a training's batch.
        """
        count = count or self.design.config.batch
        here = {row: index for index, row in enumerate(self.design.rows(count))}

        def place(x: np.ndarray) -> Array:
            def part(index):
                begin = here[index[0].indices(count)[0]]
                return x[begin : begin + len(range(*index[0].indices(count)))]

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

    def _run_nothing(self, constants, *given):
        frozen = self.frozen(constants.frozen)
        return no_part(self.design.context, constants.fixed, frozen, *given)

    def _run_part(self, constants, total, *given):
        frozen = self.frozen(constants.frozen)
        return add_part(self.design.context, total, constants.fixed, frozen, *given)

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
