"""The training: reads, steps, reports, saves, and goes on where it was.

Order matters where it is said. Whatever ends a run (a signal, a crash, a full disk), the last whole
checkpoint is what the next one starts from, and its losses are those of a run that never ended.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

from magiccolor_jax.data.loader import Sampling, batches
from magiccolor_jax.data.pictures import CaseError, write_png
from magiccolor_jax.data.plan import Plan
from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.export import save_fixed
from magiccolor_jax.training.folder import check_shared, claimed
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.preview import Previewer
from magiccolor_jax.training.profile import Profile
from magiccolor_jax.training.record import RunRecord
from magiccolor_jax.training.reports import Averages, Clock, DivergedError, Reporter, memory_gb
from magiccolor_jax.training.setup import (
    Start,
    data_fingerprint,
    held_out_data,
    make_ready,
    origins_text,
    recipe_changes,
    trained_model,
    training_data,
)
from magiccolor_jax.training.stopping import PreemptedError, Stop
from magiccolor_jax.types import TrainingBatch

DONE, FAILED, PREEMPTED = 0, 1, 75
"""Exit codes; 75 is EX_TEMPFAIL: run it again."""

NAMED = 16
"""Most scenes that are named when a batch diverges."""


class Training:
    """One run, from its start or its last checkpoint to its end."""

    def __init__(self, start: Start, console: Console):
        """Allocates nothing yet."""
        self.start, self.config, self.console = start, start.design.config, console
        self.record: RunRecord | None = None

    def run(self) -> int:
        """Trains to the end; returns the exit code.

        Raises:
            FileNotFoundError, ValueError, OSError: something does not fit, or the disk is full.
        """
        with ExitStack() as held, Stop().listening() as stop:
            try:
                self._load(held)
                stop.saves = True
            except PreemptedError:
                self.console.print("stopped before the first step; the same command goes on")
                return PREEMPTED
            except Exception as error:
                if self.record is not None:
                    self.record.failed_to_start(error)
                raise
            return self._train(stop)

    def _load(self, held: ExitStack) -> None:
        """Everything before the first step.

        Args:
            held: keeps the folder for this run.
        """
        start, config = self.start, self.config
        with self.console.status("looking at the scenes"):
            self.data = training_data(start)
            self.held_out = held_out_data(start, self.data)
        fingerprint = data_fingerprint(self.data)
        config.out.mkdir(parents=True, exist_ok=True)
        check_shared(config.out)
        held.enter_context(claimed(config.out))
        self.record = RunRecord(config, trained_model(start).to_json(), fingerprint)
        self.checkpoints = Checkpoints(config.out / "checkpoints", config.save)
        began, doing = self.record.content["start"], self.console.status
        ready = make_ready(start, self.checkpoints, fingerprint, began, doing)
        folder, self.program, self.state, self.position = ready
        if self.position.step == 0:
            self.console.print(f"starts {origins_text(start)}", soft_wrap=True, highlight=False)
        if changes := recipe_changes(start):
            text = f"recipe: not as in {config.init}: {', '.join(changes)}"
            self.console.print(f"[yellow]{escape(text)}[/]")
        save_fixed(config.out, self.program.constants.fixed)
        self.averages = Averages()
        self.profile = Profile(config.out / "profile", config.report.profile)
        self.metrics: dict[str, float] = dict(self.record.content["metrics"])
        self._validated = -1
        self._note(step=self.position.step, start=str(folder.resolve()))

    def _train(self, stop: Stop) -> int:
        begun = Reporter(self.config.out, self.console, self.position.step, self.config.steps)
        with begun as self.reporter:
            try:
                return self._steps(stop)
            except DivergedError as error:
                return self._diverged(error)
            except BaseException as error:
                self._note(state="failed", error=f"{type(error).__name__}: {error}")
                raise
            finally:
                self.profile.stop()
                self.checkpoints.close()

    def _steps(self, stop: Stop) -> int:
        if self.position.step == 0 and self._due(0, self.config.report.preview_every):
            self._preview(0)
        self.clock = Clock()
        remaining = range(self.position.step, self.config.steps)
        mine = self.start.design.rows(self.config.batch)
        reading = batches(self.data, self.config.data, mine, remaining)
        for finished in (index + 1 for index in remaining):
            if stop.asked:
                return self._stopped(finished - 1)
            rows = self._read(reading, stop)
            if rows is None:
                return self._stopped(finished - 1)
            self.profile.before(finished, self.state.step)
            batch = self.program.put(rows)
            self._step(finished, batch)
            self.reporter.advance(finished)
            stops = stop.agreed(finished)
            self._report(finished)
            if stops:
                return self._stopped(finished)
            with self.clock.pause():
                self._between(finished, stop)
        self.checkpoints.wait()
        self._note(state="done", step=self.config.steps, metrics=self.metrics)
        return DONE

    def _read(self, reading: Iterator[TrainingBatch], stop: Stop) -> TrainingBatch | None:
        """The next batch; None where the signal that asks to stop has ended the data's workers."""
        try:
            return next(reading)
        except RuntimeError:
            if not stop.asked:
                raise
            return None

    def _stopped(self, finished: int) -> int:
        """Saves what there is."""
        self._save()
        self.checkpoints.wait()
        self._note(state="preempted", step=finished)
        self.reporter.say(f"stopped after step {finished}; the same command goes on")
        return PREEMPTED

    def _step(self, finished: int, batch: TrainingBatch) -> None:
        """Launches one step; the first of a shape is waited for, so that compiling shows."""
        if self.program.is_new(batch):
            height, width = batch.target.shape[1:3]
            what = f"compiling {width} x {height}, {batch.counts.shape[1]} instances"
            with self.reporter.doing(what), self.clock.pause():
                self.program.flops(batch)
                self.state, metrics = self.program.step(self.state, batch)
                jax.block_until_ready(metrics)
        else:
            self.state, metrics = self.program.step(self.state, batch)
            self.clock.tick(self.program.flops(batch))
        self.averages.add(finished, metrics)
        self.position = self.position._replace(step=finished)

    def _due(self, finished: int, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, is due."""
        return every > 0 and (finished % every == 0 or finished == self.config.steps)

    def _report(self, finished: int) -> None:
        if not self._due(finished, self.config.report.every):
            return
        values = self.averages.take()
        if lap := self.clock.lap():
            values |= {
                "step_seconds": lap.seconds,
                "samples_per_second": self.config.batch / lap.seconds,
                "seconds_left": lap.seconds * (self.config.steps - finished),
            }
            values |= self.program.utilisation(lap)
        self._tell(finished, values | {"memory_gb": memory_gb()})

    def _tell(self, finished: int, values: dict[str, float]) -> None:
        self.metrics |= values
        self.reporter.scalars(finished, values)
        self._note(step=finished, metrics=self.metrics)

    def _note(self, **changes: Any) -> None:
        assert self.record is not None, "made before anything is noted"
        self.record.update(**changes)

    def _between(self, finished: int, stop: Stop) -> None:
        """What is done now and then; a stop that was asked for meanwhile does not wait for it."""
        saves = self._due(finished, self.config.save.every)
        validates = self.config.data.validation and (
            saves or self._due(finished, self.config.report.validate_every)
        )
        if validates and not stop.asked:
            self._validate(finished)
        if self._due(finished, self.config.report.preview_every) and not stop.asked:
            self._preview(finished)
        if saves:
            self._save()

    def _save(self) -> None:
        """Saves, once it is known that no step up to here diverged."""
        if self.position.step in (0, self.checkpoints.latest()):
            return
        loss = self.averages.take_loss()
        if self.config.data.validation:  # held-out losses compete among themselves alone
            measured = self._validated == self.position.step
            loss = self.metrics.get("validation/loss", math.inf) if measured else math.inf
        self.checkpoints.save(self.state, self.position, loss)

    def _validate(self, finished: int) -> None:
        with self.reporter.doing("validating"):
            found = [
                jax.device_get(self.program.loss(self._values(), self.program.put(rows), number))
                for number, rows in enumerate(self._held_out_batches)
            ]
        means = {
            f"validation/{name}".replace("/loss/", "/"): float(np.mean([m[name] for m in found]))
            for name in found[0]
        }
        # What is no number competes with none, and JSON has no word for it.
        known = {name: value for name, value in means.items() if math.isfinite(value)}
        if lost := sorted(means.keys() - known.keys()):
            self.reporter.say(f"[yellow]no finite number: {', '.join(lost)}[/]")
        for name in lost:
            self.metrics.pop(name, None)
        self._tell(finished, known)
        self._validated = finished

    def _preview(self, finished: int) -> None:
        with self.reporter.doing("preview"):
            pixels = self._previewer(self._values())
        if jax.process_index() == 0:
            write_png(self.config.out / "previews" / f"{finished:07}.png", pixels)
        self.reporter.picture(finished, "preview", pixels)

    def _values(self) -> Parameters:
        """The parameters that are looked at: averaged ones, where an average is kept."""
        return self.state.trainable if self.state.average is None else self.state.average

    @cached_property
    def _held_out_batches(self) -> list[TrainingBatch]:
        count = self.config.report.validation_batches
        return list(self._held_out(self.held_out, self.config.batch, count))

    @cached_property
    def _previewer(self) -> Previewer:
        ways = self.start.design.ways
        count = -(-self.config.report.previews // ways) * ways
        plan = Plan(self.held_out.plan.scene_shapes, count, 0)
        (rows,) = self._held_out(self.held_out._replace(plan=plan), count, 1)
        schedule = self.start.source.schedule
        return Previewer(self.program, schedule, self.program.put(rows, count))

    def _held_out(self, sampling: Sampling, size: int, count: int) -> Iterator[TrainingBatch]:
        """The first batches of this size."""
        here = dataclasses.replace(self.config.data, workers=0)
        return batches(sampling, here, self.start.design.rows(size), range(count))

    def _diverged(self, error: DivergedError) -> int:
        """Says what diverged, and on what; nothing is saved."""
        names = scene_names(self.data, error.step - 1)
        self.checkpoints.wait()
        newest = self.checkpoints.latest()
        kept = (
            "no checkpoint yet" if newest is None else f"checkpoint {newest} is the last good one"
        )
        text = (
            f"{error}; the batch was made of {', '.join(names)}; {kept}. Look at these scenes, or "
            "go on with a lower --optim.lr or --optim.clip"
        )
        self._note(state="failed", error=text)
        self.reporter.say(f"[red]{escape(text)}[/red]")
        return FAILED


def scene_names(data: Sampling, index: int) -> list[str]:
    """Where the scenes of a batch come from."""
    names = []
    for scene in np.unique(data.plan.scenes(index))[:NAMED]:
        try:
            names.append(str(data.source[int(scene)].path))
        except CaseError as error:
            names.append(str(error.where))
    return names
