"""From a run to a model folder: the trained networks beside the frozen ones that they grew with."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from magiccolor_jax.checkpoint import (
    ModelConfig,
    config_from_json,
    parameter_shapes,
    read_config,
    write_config,
)
from magiccolor_jax.embedded import model_folder
from magiccolor_jax.files import atomic_directory, atomic_file, link_or_copy
from magiccolor_jax.sampling.pretrained import TRAINABLE
from magiccolor_jax.tensorfile import Empty, TensorFile, TensorFileWriter, Tensors, TensorSpec
from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.initial import Stored
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.record import RECORD, read_record
from magiccolor_jax.training.stored import StoredParameters

FIXED = "fixed.safetensors"
"""A run's parameters that it does not train."""

CHECKPOINTS, MODELS = "checkpoints", "models"


def save_fixed(run: Path, fixed: Parameters) -> None:
    """Keeps what a run does not train, as its first checkpoint found it: parts may be drawn."""
    has_checkpoint = any(path.name.isdigit() for path in (run / CHECKPOINTS).glob("*"))
    if has_checkpoint and (run / FIXED).exists():
        return
    gathered = {path: _whole(value) for path, value in fixed.items()}
    if jax.process_index() == 0:
        with atomic_file(run / FIXED) as temporary:
            _write(temporary, gathered)


def stored_fixed(run: Path, paths: Iterable[str]) -> dict[str, Stored]:
    """Where a run keeps what it does not train.

    Args:
        paths: of these parameters.

    Raises:
        FileNotFoundError, ValueError: it does not, or not all of them.
    """
    file, wanted = run / FIXED, set(paths)
    found = set(TensorFile(file).specs) if wanted else wanted
    if missing := sorted(wanted - found):
        raise ValueError(
            f"{file}: a run keeps what it does not train: expected {len(wanted)} parameters, "
            f"lacks {missing[:3]} ..; go on with the run's own settings, or choose another --out"
        )
    return {path: Stored(file, path) for path in wanted}


def _whole(value: jax.Array) -> np.ndarray:
    """A parameter on the host, of which other processes may hold parts."""
    if value.is_fully_addressable:
        return np.asarray(value)
    return multihost_utils.process_allgather(value, tiled=True)


def is_run(path: Path) -> bool:
    """Whether a folder is a training run's."""
    return (path / RECORD).is_file()


def source_config(init: Path) -> ModelConfig:
    """What a model folder, or the model that a run trains, consists of.

    Raises:
        FileNotFoundError, ValueError: it is neither.
    """
    if is_run(init):
        return config_from_json(read_record(init)["model"], init / RECORD)
    return read_config(model_folder(init))


def start_folder(init: Path) -> Path:
    """The model folder itself, or one made of a run's newest checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `export_model`.
    """
    if not is_run(init):
        return model_folder(init)
    step = find_step(init, "latest")
    if jax.process_count() > 1:  # a run that still saves shows each process another
        step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    folder = init / MODELS / f"{step:07}"
    if jax.process_index() == 0 and not folder.exists():
        try:
            export_model(init, folder, step)
        except OSError:
            if not folder.exists():  # else another training that starts from here was faster
                raise
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("export")
    return folder


def find_step(run: Path, which: str) -> int:
    """Number of a run's checkpoint.

    Args:
        which: `latest`, `best`, or a number.

    Raises:
        FileNotFoundError: there is none.
    """
    known, named = [], {}
    if (run / CHECKPOINTS).is_dir():
        checkpoints = Checkpoints(run / CHECKPOINTS)
        known = checkpoints.steps()
        named = {"latest": checkpoints.latest(), "best": checkpoints.best()}
        checkpoints.close()
    step = named.get(which) if which in named else next((s for s in known if str(s) == which), None)
    if step is None:
        raise FileNotFoundError(
            f"{run / CHECKPOINTS}: expected checkpoint {which!r}, got {known or 'none'}; name one "
            "of these, latest or best"
        )
    return step


class TrainedNetwork:
    """One network of a run, parameter by parameter, whether it was trained or not."""

    def __init__(self, name: str, cfg: Any, *parts: Tensors):
        """Args:
        parts: hold parameters of the whole model, `name/path`.

        Raises:
            ValueError: they have not exactly the network's.
        """
        self._name, shapes = name, parameter_shapes(cfg)
        place = {path: part for part in parts for path in part.specs}
        self._place = {p: place[f"{name}/{p}"] for p in shapes if f"{name}/{p}" in place}
        self.specs: dict[str, TensorSpec] = {
            path: part.specs[f"{name}/{path}"] for path, part in self._place.items()
        }
        bad = [p for p in shapes if p not in self.specs or self.specs[p].shape != shapes[p]]
        unknown = {p for p in place if p.startswith(f"{name}/")} - {f"{name}/{p}" for p in shapes}
        if bad or unknown:
            raise ValueError(
                f"{name}: the run's files do not fit its {RECORD}: missing or misshapen "
                f"{bad[:4]}, unknown {sorted(unknown)[:4]}; restore the run's folder"
            )

    def read(self, key: str, empty: Empty = np.empty) -> Shaped[np.ndarray, "..."]:
        """One parameter."""
        return self._place[key].read(f"{self._name}/{key}", empty)


class TrainedModel:
    """The model of a run's checkpoint, a model folder that is not written yet.

    Reads headers only; parameters are averaged ones, where an average was kept.
    """

    def __init__(self, run: Path, step: int):
        """Raises:
        FileNotFoundError: the checkpoint is not there, or the folder that the run began with is
            not there any more.
        ValueError: the run is damaged.
        """
        self.config = source_config(run)
        self.began = _began(run, self.config)
        stored = StoredParameters(run / CHECKPOINTS, step)
        if not (run / FIXED).is_file():
            raise FileNotFoundError(
                f"{run / FIXED}: holds what the run does not train; restore it, or run the "
                "training again, which writes it"
            )
        fixed = TensorFile(run / FIXED)
        self.trained = {
            name: TrainedNetwork(name, cfg, stored, fixed)
            for name, cfg in self.config.networks.items()
            if name in TRAINABLE or any(p.startswith(f"{name}/") for p in stored.specs)
        }

    @property
    def nbytes(self) -> int:
        """Size of what `write` writes; links need no room."""
        networks = self.trained.values()
        return sum(spec.nbytes for network in networks for spec in network.specs.values())

    def links(self) -> dict[str, Path]:
        """Path in the model folder -> the file that it shares with where the run began."""
        frozen = [name for name in self.config.networks if name not in self.trained]
        names = [f"{name}.safetensors" for name in frozen]
        # What a converter left beside the networks, for the way back to PyTorch.
        files = [p for p in (self.began / "files").rglob("*") if p.is_file()]
        beside = [self.began / name for name in ("manifest.json", "extra.safetensors")]
        files += [path for path in beside if path.is_file()]
        return {
            **{name: self.began / name for name in names},
            **{str(path.relative_to(self.began)): path for path in files},
        }

    def write(self, out: Path, advance: Callable[[int], None] = lambda count: None) -> None:
        """Writes the model folder, whole or not at all.

        Files that the training did not change are links to those that it began with.

        Args:
            advance: is told of written bytes.

        Raises:
            FileExistsError: `out` exists.
        """
        with atomic_directory(out) as folder:
            write_config(folder, self.config)
            for name, network in self.trained.items():
                with TensorFileWriter(folder / f"{name}.safetensors", network.specs) as writer:
                    for key, spec in network.specs.items():
                        writer.write(key, network.read(key))
                        advance(spec.nbytes)
            for name, source in self.links().items():
                link_or_copy(source, folder / name)


def _began(run: Path, model: ModelConfig) -> Path:
    """The model folder that a run began with.

    Raises:
        FileNotFoundError: it is not there any more, or not whole.
        ValueError: the run never got as far as loading it.
    """
    started = read_record(run).get("start")
    if not isinstance(started, str):
        raise ValueError(
            f"{run / RECORD}: expected `start`, the model folder that the run began with, got "
            f"{started!r}: the run ended before it was loaded; start it again"
        )
    wanted = [f"{name}.safetensors" for name in model.networks if name not in TRAINABLE]
    missing = [name for name in ("config.json", *wanted) if not (Path(started) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{started}: the run {run} began with this model folder and its frozen networks, but "
            f"{', '.join(missing)} is not there: put it back, or change `start` in {run / RECORD}"
        )
    return Path(started)


def export_model(run: Path, out: Path, step: int) -> None:
    """Writes the model folder of a run's checkpoint.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: as `TrainedModel`.
    """
    TrainedModel(run, step).write(out)


def _write(path: Path, values: dict[str, Any]) -> None:
    specs = {key: TensorSpec(value.dtype, value.shape) for key, value in values.items()}
    with TensorFileWriter(path, specs) as writer:
        for key, value in values.items():
            writer.write(key, value)
