"""Which scene is which row of which batch: a pure function of seed and number.

Every process makes the same plan and takes its own rows of it, so that processes never talk about
data, batches have one shape on all of them, and a training goes on at any step without reading what
came before, on any number of processes.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from magiccolor_jax.data.samples import Shape

PLANS = 1
"""Begins the seeds of plans: those of samples begin otherwise (loader.py)."""


class Draw(NamedTuple):
    """One row of a batch."""

    scene: int
    """Number of the scene in its source."""
    position: int
    """Number of the row in the whole training, from 0: seeds everything random about it."""


class Plan:
    """Batches of scenes of one shape each, shuffled anew in every epoch.

    An epoch has about as many rows as there are scenes. A shape gets a number of batches in
    proportion to its scenes, rounded at random so that every scene is seen equally often over many
    epochs, however few share its shape.
    """

    def __init__(self, shapes: Sequence[Shape], batch: int, seed: int):
        """Args:
            shapes: of each scene.
            batch: rows, over all processes.

        Raises:
            ValueError: there is no scene.
        """
        if not shapes:
            raise ValueError("plan: a training needs at least one scene, got none")
        self.batch, self.seed = batch, seed
        self.scene_shapes = list(shapes)
        self._names = sorted(set(shapes))
        number = {name: index for index, name in enumerate(self._names)}
        self._kinds = np.array([number[shape] for shape in shapes])
        self._groups = [np.flatnonzero(self._kinds == kind) for kind in range(len(self._names))]
        self.epoch = -(-len(shapes) // batch)
        self._orders: dict[int, np.ndarray] = {}

    def fingerprint(self) -> str:
        """Tells plans apart: other scenes, shapes, batch size or seed."""
        text = f"{self._names} {self.batch} {self.seed}".encode()
        return hashlib.sha256(text + self._kinds.tobytes()).hexdigest()[:16]

    def shapes(self) -> dict[Shape, int]:
        """Number of scenes of each shape."""
        return {name: len(g) for name, g in zip(self._names, self._groups, strict=True)}

    def scenes(self, step: int) -> Int[np.ndarray, "batch"]:
        """Scenes of the batch of a step, from 0."""
        epoch, number = divmod(step, self.epoch)
        order = self._orders.get(epoch)
        if order is None:
            order = self._order(epoch)
            # Threads read ahead over the end of an epoch: the one before is still asked for.
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1} | {
                epoch: order
            }
        return order[number]

    def alike(self, scene: int) -> Int[np.ndarray, "n"]:
        """The scenes of the same shape, itself among them."""
        return self._groups[self._kinds[scene]]

    def _order(self, epoch: int) -> Int[np.ndarray, "n batch"]:
        rng = np.random.default_rng([PLANS, self.seed, epoch])
        ends = np.cumsum([len(group) for group in self._groups]) / len(self._kinds) * self.epoch
        # Systematic sampling: each shape's expected number of batches is exact, their sum fixed.
        counts = np.diff(np.floor(ends + rng.random()), prepend=0).astype(int).tolist()
        rows = [
            _shuffled(group, count * self.batch, rng).reshape(count, self.batch)
            for group, count in zip(self._groups, counts, strict=True)
        ]
        return rng.permutation(np.concatenate(rows))


def _shuffled(
    group: Int[np.ndarray, "n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "count"]:
    """So many members of a group, none more than once oftener than another."""
    rounds = [rng.permutation(group) for _ in range(-(-count // len(group)))]
    return np.concatenate([*rounds, group[:0]])[:count]


class Rows:
    """A process' share of a plan, as Grain reads it: row after row, batch after batch."""

    def __init__(self, plan: Plan, rows: Sequence[int], steps: range):
        """Args:
        rows: of every batch that this process needs.
        steps: of the training that are to be read.
        """
        self.plan, self.rows, self.steps = plan, rows, steps

    def __len__(self) -> int:
        return len(self.steps) * len(self.rows)

    def __getitem__(self, index: int) -> Draw:
        number, row = divmod(int(index), len(self.rows))
        step, row = self.steps[number], self.rows[row]
        return Draw(int(self.plan.scenes(step)[row]), step * self.plan.batch + row)
