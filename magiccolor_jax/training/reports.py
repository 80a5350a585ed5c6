"""What a training says while it runs: terminal, metrics.jsonl, TensorBoard."""

import json
import math
import resource
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from magiccolor_jax.files import atomic_file
from magiccolor_jax.training.step import Metrics

IN_FLIGHT = 2
"""Steps that may be under way before the oldest one's metrics are looked at."""


class DivergedError(ValueError):
    """A loss or gradient is not finite."""

    def __init__(self, step: int, name: str, value: float):
        super().__init__(step, name, value)
        self.step = step

    def __str__(self) -> str:
        step, name, value = self.args
        return f"step {step}: {name} must be finite, got {value}"


class Averages:
    """Metrics of the steps since the last report."""

    def __init__(self):
        self._waiting: deque[tuple[int, Metrics]] = deque()
        self._values: dict[str, list[float]] = {}
        self._losses: list[float] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Notes a step that was launched.

        Raises:
            DivergedError: an earlier one diverged.
        """
        self._waiting.append((step, metrics))
        while len(self._waiting) > IN_FLIGHT:
            self._take()

    def settle(self) -> None:
        """Waits for all steps.

        Raises:
            DivergedError: one diverged.
        """
        while self._waiting:
            self._take()

    def take(self) -> dict[str, float]:
        """Means since the last call; empty where there was no step."""
        self.settle()
        values, self._values = self._values, {}
        return {name: _mean(found) for name, found in values.items()}

    def take_loss(self) -> float:
        """Mean loss since the last call of this method: one step's says little."""
        self.settle()
        losses, self._losses = self._losses, []
        return _mean(losses)

    def _take(self) -> None:
        step, metrics = self._waiting.popleft()
        found = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(found.get(name, 0.0)):
                raise DivergedError(step, name, found[name])
        self._losses.append(found["loss"])
        for name, value in found.items():
            self._values.setdefault(name, []).append(value)


def _mean(values: list[float]) -> float:
    return float(clu_metrics.Average.from_model_output(jnp.asarray(values)).compute())


class Lap(NamedTuple):
    """Means over some steps."""

    seconds: float
    work: float


class Clock:
    """Time of the steps alone: compiling, saving, validating and previews do not count."""

    def __init__(self):
        self._begun, self._paused = time.perf_counter(), 0.0
        self._work: list[float] = []

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside does not count."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begun

    def tick(self, work: float = 0.0) -> None:
        """A step was launched.

        Args:
            work: floating-point operations of it.
        """
        self._work.append(work)

    def lap(self) -> Lap | None:
        """Means per step since the last lap; None without a step."""
        spent, work = time.perf_counter() - self._begun - self._paused, self._work
        self._begun, self._paused, self._work = time.perf_counter(), 0.0, []
        return Lap(spent / len(work), sum(work) / len(work)) if work else None


class Reporter:
    """Writes to all three places, from the first process alone."""

    def __init__(self, folder: Path, console: Console, start: int, steps: int):
        """Args:
        start: finished steps.
        """
        self.console = console
        self._active = jax.process_index() == 0
        self._board = self._lines = None
        if self._active:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
            self._lines = _open_lines(folder / "metrics.jsonl", start)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._active,
        )
        self._task = self.progress.add_task("training", total=steps, completed=start)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.progress.console.print(text, highlight=False)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self.progress.update(self._task, completed=step)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Says what is going on in place of `training`."""
        self.progress.update(self._task, description=what, refresh=True)
        try:
            yield
        finally:
            self.progress.update(self._task, description="training", refresh=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        if self._lines is None or self._board is None:
            return
        self._lines.write(json.dumps({"step": step} | dict(values)) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        text = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.say(f"step {step}  {text}")

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture of a step, for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> "Reporter":
        self.progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.stop()
        if self._board is not None and self._lines is not None:
            self._board.close()
            self._lines.close()


def _open_lines(path: Path, start: int) -> TextIO:
    """The file to append to, without what a killed run wrote after its last checkpoint."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= start]
    if kept != lines:
        with atomic_file(path) as temporary:
            temporary.write_text("".join(kept))
    return path.open("a", buffering=1)


def _short(value: float) -> str:
    return f"{value:.4g}"


def memory_gb() -> float:
    """Most memory that was in use so far: the first device's, on CPU this process'."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return (peak if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e9
