"""Batches for training: a source, a plan and a maker, read ahead by Grain.

The position is the number of the step alone: a training goes on at a step by reading from there.
"""

import functools
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.plan import Draw, Plan, Rows
from magiccolor_jax.data.samples import Maker, Play, join
from magiccolor_jax.data.scenes import Source
from magiccolor_jax.data.sources import outlines
from magiccolor_jax.types import TrainingBatch

logger = logging.getLogger(__name__)

SAMPLES = 2
"""Begins the seeds of samples: the plan's begin otherwise (plan.py)."""

ATTEMPTS = 8
"""Scenes that are tried for one row; a source with more bad ones in a row wants mending."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on and how it is read."""

    sources: tuple[str, ...] = ()
    """KIND:FOLDER each, KIND one of cases, release, triplets, pairs, records; or FOLDER, whose kind
    is found out; or art:FILE, a library of drawings that pages are composed of (art-objects:FILE
    and art-sources:FILE are held out of it)."""
    validation: tuple[str, ...] = ()
    """The same, held out: measured and previewed, never trained on."""
    play: Play = field(default_factory=Play)
    """What happens to a scene on its way to a sample."""
    workers: int = 0
    """Processes that make samples; 0: threads of the training process."""
    threads: int = 4
    """Threads that make samples, in each of these processes."""
    ahead: int = 4
    """Batches that are made ahead, by each of these processes."""

    def __post_init__(self):
        least = {"workers": 0, "threads": 1, "ahead": 1}
        if bad := {n: getattr(self, n) for n, low in least.items() if getattr(self, n) < low}:
            raise ValueError(f"DataConfig: expected at least {least}, got {bad}")


class Sampling(NamedTuple):
    """Draws in, samples out: what Grain runs in its workers."""

    source: Source
    plan: Plan
    maker: Maker
    seed: int

    @classmethod
    def of(cls, source: Source, maker: Maker, batch: int, seed: int) -> "Sampling":
        """Batches of all scenes of a source.

        Raises:
            ValueError: there is no scene, or one report of those that cannot be used.
        """
        shapes = [maker.shape_of(outline) for outline in outlines(source)]
        return cls(source, Plan(shapes, batch, seed), maker, seed)

    def __call__(self, draw: Draw) -> TrainingBatch:
        """The sample of a draw; a scene that cannot be used is replaced by another, of its shape
        while there is one.

        Raises:
            CaseError: too many in a row cannot be used.
        """
        tried, shape = [draw.scene], self.plan.scene_shapes[draw.scene]
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([SAMPLES, self.seed, draw.position, attempt])
            try:
                return self.maker(self.source[tried[-1]], rng, shape)
            except CaseError as error:
                others = np.setdiff1d(self.plan.alike(draw.scene), tried)
                if not others.size:
                    others = np.setdiff1d(np.arange(len(self.source)), tried)
                if attempt == ATTEMPTS - 1 or not others.size:
                    raise
                _warn_once(str(error))
                tried.append(int(rng.choice(others)))
        raise AssertionError("the last attempt returns or raises")


@functools.cache
def _warn_once(text: str) -> None:
    """A scene comes back in every epoch."""
    logger.warning("%s (another scene takes its place)", text)


def _leave_signals(index: int, count: int) -> None:
    """Workers end with the training: what a scheduler tells all processes is for that to answer."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def batches(
    sampling: Sampling, config: DataConfig, rows: Sequence[int], steps: range
) -> Iterator[TrainingBatch]:
    """This process' part of the batches of some steps, in order, made ahead.

    Args:
        rows: of every batch that this process needs.
    """
    data = grain.MapDataset.source(Rows(sampling.plan, rows, steps))
    data = data.map(sampling).batch(len(rows), batch_fn=join)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.ahead)
    read = data.to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers take over absl's flags
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(config.workers, config.ahead)
        read = read.mp_prefetch(options, worker_init_fn=_leave_signals)
    return iter(read)
