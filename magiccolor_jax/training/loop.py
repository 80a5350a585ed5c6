"""The training: reads, steps, reports, saves, and goes on where it was.

Order matters where it is said. Whatever ends a run (a signal, a crash, a full disk), the last whole
checkpoint is what the next one starts from, and its losses are those of a run that never ended.
"""

import dataclasses
from collections.abc import Iterator
from functools import cached_property

import jax
import numpy as np
from PIL import Image
from rich.console import Console

from magiccolor_jax.data.loader import Sampling, batches
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.files import atomic_file
from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.export import save_fixed
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.preview import Previewer
from magiccolor_jax.training.record import RunRecord
from magiccolor_jax.training.reports import Averages, Clock, DivergedError, Reporter, memory_gb
from magiccolor_jax.training.setup import (
    Start,
    held_out_data,
    make_ready,
    trained_model,
    training_data,
)
from magiccolor_jax.training.stopping import Stop
from magiccolor_jax.types import TrainingBatch

DONE, FAILED, PREEMPTED = 0, 1, 75
"""Exit codes; 75 is EX_TEMPFAIL: run it again."""

NAMED = 16
"""Most scenes that are named when a batch diverges."""


class Training:
    """One run, from its start or its last checkpoint to its end."""

    def __init__(self, start: Start, console: Console):
        """Loads everything.

        Raises:
            FileNotFoundError, ValueError: something does not fit.
        """
        self.start, self.config, self.console = start, start.design.config, console
        self.data, self.held_out = training_data(start), held_out_data(start)
        fingerprint = self.data.plan.fingerprint()
        self.config.out.mkdir(parents=True, exist_ok=True)
        self.record = RunRecord(self.config, trained_model(start).to_json(), fingerprint)
        self.checkpoints = Checkpoints(self.config.out / "checkpoints", self.config.save)
        ready = make_ready(start, self.checkpoints, fingerprint, console.status)
        folder, self.program, self.state, self.position = ready
        self.record.content["start"] = str(folder.resolve())
        self.averages, self.clock = Averages(), Clock()
        self.metrics: dict[str, float] = dict(self.record.content["metrics"])

    def run(self) -> int:
        """Trains to the end; returns the exit code."""
        save_fixed(self.config.out, self.program.constants.fixed)
        self.record.update(step=self.position.step)
        begun = Reporter(self.config.out, self.console, self.position.step, self.config.steps)
        with Stop().listening() as stop, begun as self.reporter:
            try:
                return self._steps(stop)
            except DivergedError as error:
                return self._diverged(error)
            except BaseException as error:
                self.record.update(state="failed", error=f"{type(error).__name__}: {error}")
                raise
            finally:
                self.checkpoints.close()

    def _steps(self, stop: Stop) -> int:
        if self.position.step == 0:
            self._preview(0)
        remaining = range(self.position.step, self.config.steps)
        reading = batches(self.data, self.config.data, self.start.design.rows(), remaining)
        for index in remaining:
            self._profile(index)
            batch = self.program.put(next(reading))
            self._step(index, batch)
            finished = index + 1
            self.reporter.advance(finished)
            stops = stop.agreed(finished)
            self._report(finished, batch)
            if stops:
                self._save()
                self.record.update(state="preempted", step=finished)
                self.reporter.say(f"stopped after step {finished}; the same command goes on")
                return PREEMPTED
            with self.clock.pause():
                self._validate(finished)
                self._preview(finished)
                if self._due(finished, self.config.save.every):
                    self._save()
        self._profile(self.config.steps)
        self.record.update(state="done", step=self.config.steps, metrics=self.metrics)
        return DONE

    def _step(self, index: int, batch: TrainingBatch) -> None:
        """Launches one step; the first of a shape is waited for, so that compiling shows."""
        if self.program.is_new(batch):
            height, width = batch.target.shape[1:3]
            what = f"compiling {width} x {height}, {batch.counts.shape[1]} instances"
            with self.reporter.doing(what), self.clock.pause():
                self.state, metrics = self.program.step(self.state, batch)
                jax.block_until_ready(metrics)
        else:
            self.state, metrics = self.program.step(self.state, batch)
            self.clock.tick()
        self.averages.add(index + 1, metrics)
        self.position = self.position._replace(step=index + 1)

    def _due(self, finished: int, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, is due."""
        return every > 0 and (finished % every == 0 or finished == self.config.steps)

    def _report(self, finished: int, batch: TrainingBatch) -> None:
        if not self._due(finished, self.config.report.every):
            return
        values = self.averages.take()
        if seconds := self.clock.lap():
            values |= {"step_seconds": seconds, "samples_per_second": self.config.batch / seconds}
            with self.clock.pause():
                values |= self.program.utilisation(batch, seconds)
        self._tell(finished, values | {"memory_gb": memory_gb()})

    def _tell(self, finished: int, values: dict[str, float]) -> None:
        self.metrics |= values
        self.reporter.scalars(finished, values)
        self.record.update(step=finished, metrics=self.metrics)

    def _save(self) -> None:
        """Saves, once it is known that no step up to here diverged."""
        self.averages.settle()
        loss = self.metrics.get("validation/loss", self.averages.last["loss"])
        self.checkpoints.save(self.state, self.position, loss)

    def _validate(self, finished: int) -> None:
        if not (
            self.config.data.validation and self._due(finished, self.config.report.validate_every)
        ):
            return
        with self.reporter.doing("validating"):
            found = [
                jax.device_get(self.program.loss(self._values(), self.program.put(rows), number))
                for number, rows in enumerate(self._held_out_batches)
            ]
        means = {f"validation/{k}": float(np.mean([m[k] for m in found])) for k in found[0]}
        self._tell(finished, {k.replace("/loss/", "/"): v for k, v in means.items()})

    def _preview(self, finished: int) -> None:
        if not self._due(finished, self.config.report.preview_every):
            return
        with self.reporter.doing("preview"):
            pixels = self._previewer(self._values())
        if jax.process_index() == 0:
            path = self.config.out / "previews" / f"{finished:07}.png"
            with atomic_file(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG")
        self.reporter.picture(finished, "preview", pixels)

    def _values(self) -> Parameters:
        """The parameters that are looked at: averaged ones, where an average is kept."""
        return self.state.trainable if self.state.average is None else self.state.average

    def _profile(self, index: int) -> None:
        """Begins and ends the trace of the profiled steps, 1 being the first."""
        if self.config.report.profile is None:
            return
        first, last = self.config.report.profile
        if index + 1 == first:
            jax.profiler.start_trace(str(self.config.out / "profile"))
        if index == last:
            jax.block_until_ready(self.state.step)
            jax.profiler.stop_trace()

    @cached_property
    def _held_out_batches(self) -> list[TrainingBatch]:
        return list(self._held_out(self.config.report.validation_batches))

    @cached_property
    def _previewer(self) -> Previewer:
        batch = self.program.put(next(self._held_out(1)))
        return Previewer(self.program, self.start.source.schedule, batch)

    def _held_out(self, count: int) -> Iterator[TrainingBatch]:
        here = dataclasses.replace(self.config.data, workers=0)
        return batches(self.held_out, here, self.start.design.rows(), range(count))

    def _diverged(self, error: DivergedError) -> int:
        """Says what diverged, and on what; nothing is saved."""
        names = scene_names(self.data, error.step - 1)
        newest = self.checkpoints.latest()
        kept = (
            "no checkpoint yet" if newest is None else f"checkpoint {newest} is the last good one"
        )
        text = (
            f"{error}; the batch was made of {', '.join(names)}; {kept}. Look at these scenes, or "
            "go on with a lower --optim.lr or --optim.clip"
        )
        self.record.update(state="failed", error=text)
        self.reporter.say(f"[red]{text}[/red]")
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
