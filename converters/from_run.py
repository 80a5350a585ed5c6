"""The folder of a training run -> a model folder; `training/export.py` writes it."""

import os
from pathlib import Path
from typing import NamedTuple

from converters.plan import overhead
from converters.streaming import byte_progress, existing_parent
from magiccolor_jax.training.export import TrainedModel


class ModelExport(NamedTuple):
    """A checked conversion of a run's checkpoint to a model folder."""

    trained: TrainedModel
    output: Path

    @property
    def notes(self) -> list[str]:
        """What the user should know before it starts."""
        if self._copied:
            return [
                f"{self.output} is on another disk than {self.trained.began}: its files are copied"
            ]
        return [f"shares its other files with {self.trained.began}, by hard links"]

    @property
    def disk(self) -> int:
        """Size of what is written, at most."""
        specs = [network.specs for network in self.trained.trained.values()]
        return self.trained.nbytes + self._copied + overhead(specs)

    @property
    def _copied(self) -> int:
        """Bytes of the files that cannot be links, because the output is on another disk."""
        here = os.stat(existing_parent(self.output)).st_dev
        found = [path.stat() for path in self.trained.links().values()]
        return sum(stat.st_size for stat in found if stat.st_dev != here)

    def write(self) -> None:
        """Carries it out; the output appears whole or not at all.

        Raises:
            FileExistsError: the output exists.
            OSError: the disk is full.
        """
        with byte_progress("to JAX", self.trained.nbytes) as advance:
            self.trained.write(self.output, advance)
