"""Trains one network by itself, from nothing, where no pretrained one is at hand.

The run's folder holds checkpoints, metrics, previews and settings.json; at its end also `model/`,
a model folder with that network alone.
"""

import abc
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, Float
from rich.console import Console

from magiccolor_jax.checkpoint import ModelConfig, save_network, write_config
from magiccolor_jax.data.listing import digest
from magiccolor_jax.data.pictures import write_png
from magiccolor_jax.data.scenes import Source
from magiccolor_jax.data.sources import Concatenation, open_source
from magiccolor_jax.files import atomic_directory, atomic_file, code_version
from magiccolor_jax.training.checkpoints import Checkpoints, Position
from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.folder import claimed
from magiccolor_jax.training.optim import OptimConfig, make_optimizer
from magiccolor_jax.training.parameters import Layout, Parameters
from magiccolor_jax.training.preview import tile
from magiccolor_jax.training.record import plain
from magiccolor_jax.training.reports import Averages, Clock, Reporter, memory_gb
from magiccolor_jax.training.step import Metrics, StepContext, TrainState, first_state, train_step
from magiccolor_jax.training.stopping import PreemptedError, Stop

DONE, PREEMPTED = 0, 75

MEASURED = 16
"""Batches of what is held out."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What every network's training has."""

    out: Path
    """Folder of this run."""
    sources: tuple[str, ...]
    """KIND:FOLDER each, or art:FILE, as a training's `data.sources`."""
    validation: tuple[str, ...] = ()
    """Held-out ones, measured whenever a preview is written."""
    batch: int = 16
    """What a step sees, in the network's own measure."""
    steps: int = 20_000
    """Length of the training."""
    seed: int = 0
    """Of everything random."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=2e-3, warmup=100, schedule="cosine", weight_decay=0.0
        )
    )
    """The optimiser."""
    average: float = 0.999
    """Decay of the moving average, which is what is kept."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """Checkpoints."""
    every: int = 100
    """Steps between lines of progress."""
    preview_every: int = 2000
    """Steps between preview pictures; 0: none."""
    threads: int = 2
    """Threads that make batches."""

    COUNTS: ClassVar[tuple[str, ...]] = ("batch", "steps", "every", "threads")
    """Fields that are at least 1."""

    def __post_init__(self):
        if bad := {name: getattr(self, name) for name in self.COUNTS if getattr(self, name) < 1}:
            raise ValueError(f"{type(self).__name__}: expected at least 1, got {bad}")


class Pretraining(abc.ABC):
    """One run, from its start or its last checkpoint to its end."""

    NAME: ClassVar[str]
    """Of the network, in words."""
    KEPT: ClassVar[str]
    """What must stay as it was where a run goes on, in words."""

    def __init__(self, config: Any, console: Console, network: nnx.Module):
        """Args:
            config: a `PretrainingConfig` with what the network needs.
            network: as it begins.

        Raises:
            ValueError, CaseError: a source cannot be opened.
        """
        self.config, self.console = config, console
        self.source = _opened(config.sources)
        self.held_out = _opened(config.validation) if config.validation else None
        self.layout = Layout(network)
        values = self.layout.take(network)
        stays = {path for path in values if self.stays(path)}
        self.fixed = {path: value for path, value in values.items() if path in stays}
        self.first = {path: value for path, value in values.items() if path not in stays}
        self.plan = digest([self.source.fingerprint(), *self.what_decides_batches()])
        self.context = StepContext(
            layout=self.layout,
            loss=lambda model, frozen, batch, keys, _: self.objective(model, batch, keys.noise),
            optimizer=make_optimizer(config.optim, self.first, config.steps),
            steps=config.steps,
            average_decay=config.average,
        )
        self.step = jax.jit(self._step, donate_argnums=1)
        self._measure = jax.jit(self._measured)

    def stays(self, path: str) -> bool:
        """Whether a parameter is left as it is."""
        return False

    @abc.abstractmethod
    def what_decides_batches(self) -> list[Any]:
        """Beside the source: a run goes on with the same ones only."""

    @abc.abstractmethod
    def batches(self, source: Source) -> Callable[[int], Any]:
        """Number of a step -> what it sees; called in several threads."""

    @abc.abstractmethod
    def objective(self, model: Any, batch: Any, key: Array) -> tuple[Float[Array, ""], Metrics]:
        """The loss of a batch, and what is reported."""

    @abc.abstractmethod
    def preview(self, values: Parameters, batch: Any) -> list[list[Float[np.ndarray, "_ _ 3"]]]:
        """Columns of pictures in [-1, 1] that show what the network does."""

    @abc.abstractmethod
    def model(self, values: Parameters) -> ModelConfig:
        """What the model folder's config.json says of the one network, which it names."""

    def run(self) -> int:
        """Trains to the end; returns the exit code.

        Raises:
            ValueError, OSError: a checkpoint does not fit, or the disk is full.
        """
        self.config.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held, Stop().listening() as stop:
            held.enter_context(claimed(self.config.out))
            with atomic_file(self.config.out / "settings.json") as temporary:
                settings = {"code": code_version(), "config": plain(self.config)}
                temporary.write_text(json.dumps(settings, indent=2, default=str) + "\n")
            try:
                self.checkpoints = Checkpoints(self.config.out / "checkpoints", self.config.save)
                state, position = self._begin()
                stop.saves = True
            except PreemptedError:
                return PREEMPTED
            try:
                return self._train(state, position, stop)
            finally:
                self.checkpoints.close()

    def _begin(self) -> tuple[TrainState, Position]:
        start = jax.jit(lambda values: first_state(self.context, values))
        shapes = jax.eval_shape(start, self.first)
        newest = self.checkpoints.latest()
        if newest is None:
            return start(self.first), Position(0, self.plan)
        here = SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda _: here, shapes)
        state, position = self.checkpoints.restore(newest, shapes, places)
        if position.plan != self.plan:
            raise ValueError(
                f"{self.config.out}: a run goes on with the data that it began with; restore the "
                f"sources, {self.KEPT}, or choose another --out"
            )
        return state, position

    def _train(self, state: TrainState, position: Position, stop: Stop) -> int:
        config, begun = self.config, position.step
        averages, clock = Averages(), Clock()
        with Reporter(config.out, self.console, begun, config.steps) as reporter:
            for finished, batch in enumerate(self._batches(begun), begun + 1):
                if finished == begun + 1:
                    with reporter.doing("compiling"), clock.pause():
                        state, metrics = self.step(self.fixed, state, batch)
                        jax.block_until_ready(metrics)
                else:
                    state, metrics = self.step(self.fixed, state, batch)
                    clock.tick()
                averages.add(finished, metrics)
                reporter.advance(finished)
                if finished % config.every == 0 or finished == config.steps:
                    self._report(reporter, finished, averages, clock)
                last = stop.asked or finished == config.steps
                with clock.pause():
                    if config.preview_every and (
                        finished % config.preview_every == 0 or finished == config.steps
                    ):
                        self._look(reporter, finished, state, batch)
                    if last or finished % config.save.every == 0:
                        self.checkpoints.save(
                            state, Position(finished, self.plan), averages.take_loss()
                        )
                if stop.asked and finished < config.steps:
                    reporter.say(f"stopped after step {finished}; the same command goes on")
                    return PREEMPTED
        self.checkpoints.wait()
        self._export(state)
        return DONE

    def _report(self, reporter: Reporter, finished: int, averages: Averages, clock: Clock) -> None:
        values = averages.take()
        if lap := clock.lap():
            left = lap.seconds * (self.config.steps - finished)
            values |= {"step_seconds": lap.seconds, "seconds_left": left}
        reporter.scalars(finished, values | {"memory_gb": memory_gb()})

    def _batches(self, begun: int) -> Iterator[Any]:
        """What each step that is left sees, made ahead."""
        data = grain.MapDataset.range(begun, self.config.steps).map(self.batches(self.source))
        return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=self.config.threads)))

    def _step(self, fixed: Parameters, state: TrainState, batch: Any):
        key = jax.random.key(self.config.seed)
        frozen: Any = None  # this network has none beside it
        return train_step(self.context, fixed, frozen, state, batch, key)

    def _look(self, reporter: Reporter, finished: int, state: TrainState, batch: Any) -> None:
        """Writes a preview, and measures what is held out."""
        values = self.fixed | _kept(state)
        columns = self.preview(values, batch)
        write_png(self.config.out / "previews" / f"{finished:07}.png", tile(columns))
        if self.held_out is not None:
            make = self.batches(self.held_out)
            found = [self._measure(values, make(number), number) for number in range(MEASURED)]
            means = {f"validation/{name}": [each[name] for each in found] for name in found[0]}
            reporter.scalars(finished, {name: float(np.mean(x)) for name, x in means.items()})

    def _measured(self, values: Parameters, batch: Any, number: Array) -> Metrics:
        key = jax.random.fold_in(jax.random.key(0), number)
        return self.objective(self.layout.build(values), batch, key)[1]

    def _export(self, state: TrainState) -> None:
        """Writes the averaged network as a model folder, in place of an earlier part's."""
        folder, values = self.config.out / "model", self.fixed | _kept(state)
        config = self.model(values)
        (name,) = config.networks
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_directory(folder) as new:
            save_network(new / f"{name}.safetensors", self.layout.build(values))
            write_config(new, config)
        self.console.print(f"-> {folder}", markup=False, soft_wrap=True)


def _opened(texts: tuple[str, ...]) -> Concatenation:
    return Concatenation([open_source(text) for text in texts])


def _kept(state: TrainState) -> Parameters:
    """The moving average."""
    assert state.average is not None, "always kept"
    return state.average


def signed(pixels: Any) -> Float[Array, "*s 3"]:
    """0..255 -> [-1, 1]."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1
