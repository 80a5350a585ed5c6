"""A checkpoint's parameters on the disk, read block by block; no process waits for another."""

from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Shaped

from magiccolor_jax.tensorfile import Empty, TensorSpec

Tensor = Shaped[np.ndarray, "..."]

AT_ONCE, BLOCK = 1 << 28, 4
"""Bytes of a network that is read at once, because each visit costs a tenth of a second; and of a
larger one, the parts of a path that name what is read at once (`denoiser/up_blocks/1/resnets`)."""


class StoredParameters:
    """The parameters to use of a checkpoint: averaged ones, where an average was kept."""

    def __init__(self, checkpoints: Path, step: int):
        """Reads names, shapes and types.

        Args:
            checkpoints: folder of a run's checkpoints.

        Raises:
            FileNotFoundError: it has no such checkpoint.
        """
        average, trainable = (checkpoints / str(step) / name for name in ("average", "trainable"))
        self.folder: Any = (average if average.is_dir() else trainable).absolute()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: this checkpoint is not there, or not whole")
        me = {jax.process_index()}
        alone = ocp.options.MultiprocessingOptions(jax.process_index(), me, "stored")
        self._handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        self.specs: dict[str, TensorSpec] = {
            path: TensorSpec(np.dtype(found.dtype), tuple(found.shape))
            for path, found in self._handler.metadata(self.folder).tree.items()
        }
        sizes = Counter[str]()
        for path, spec in self.specs.items():
            sizes[path.split("/", 1)[0]] += spec.nbytes
        self._depth = {name: 1 if size <= AT_ONCE else BLOCK for name, size in sizes.items()}
        self._lock, self._held = Lock(), {}

    def read(self, key: str, empty: Empty = np.empty) -> Tensor:
        """One parameter, on the host; its block is kept until another of its network is read."""
        network = key.split("/", 1)[0]
        with self._lock:
            if key not in self._held.get(network, {}):
                self._held.pop(network, None)
                block = self._block(key)
                paths = [path for path in self.specs if self._block(path) == block]
                self._held[network] = self._restore(paths)
            return self._held[network][key]

    def _block(self, path: str) -> list[str]:
        parts = path.split("/")
        return parts[: self._depth[parts[0]]]

    def _restore(self, paths: list[str]) -> dict[str, Tensor]:
        args = ocp.args.PyTreeRestore(
            item=dict.fromkeys(paths, 0),
            restore_args={path: ocp.RestoreArgs(restore_type=np.ndarray) for path in paths},
            partial_restore=True,
        )
        found = self._handler.restore(self.folder, args=args)
        return {path: np.asarray(found[path], self.specs[path].dtype) for path in paths}
