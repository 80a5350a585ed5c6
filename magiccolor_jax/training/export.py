"""From a run to a model folder: the trained networks beside the frozen ones that they grew with."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from magiccolor_jax.checkpoint import ModelConfig, config_from_json, read_config, write_config
from magiccolor_jax.files import atomic_directory, atomic_file, link_or_copy
from magiccolor_jax.sampling.pretrained import TRAINABLE
from magiccolor_jax.tensorfile import TensorFile, TensorFileWriter, TensorSpec
from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.record import RECORD, read_record

FIXED = "fixed.safetensors"
"""A run's parameters that it does not train."""

CHECKPOINTS, MODELS = "checkpoints", "models"


def save_fixed(run: Path, fixed: Parameters) -> None:
    """Keeps what a run does not train, once: parts of it may have been drawn."""
    if (run / FIXED).exists():
        return
    gathered = {path: _whole(value) for path, value in fixed.items()}
    if jax.process_index() == 0:
        with atomic_file(run / FIXED) as temporary:
            _write(temporary, gathered)


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
    return read_config(init)


def start_folder(init: Path) -> Path:
    """The model folder itself, or one made of a run's newest checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `export_model`.
    """
    if not is_run(init):
        return init
    step = find_step(init, "latest")
    folder = init / MODELS / f"{step:07}"
    if jax.process_index() == 0 and not folder.exists():
        export_model(init, folder, step)
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


def export_model(run: Path, out: Path, step: int) -> None:
    """Writes a model folder; averaged parameters, where an average was kept.

    Files that the training did not change are links to those of the folder that it began with.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: the run, or the folder that it began with, is not there any more.
        ValueError: the run is damaged.
    """
    record = read_record(run)
    model = config_from_json(record["model"], run / RECORD)
    began = Path(record["start"])
    if not (began / "config.json").is_file():
        raise FileNotFoundError(
            f"{began}: the run {run} began with this model folder and its frozen networks; put it "
            f"back, or change `start` in {run / RECORD}"
        )
    checkpoints = Checkpoints(run / CHECKPOINTS)
    trained = checkpoints.parameters(step)
    checkpoints.close()
    fixed = TensorFile(run / FIXED)
    with atomic_directory(out) as folder:
        write_config(folder, model)
        for name in model.networks:
            if name not in TRAINABLE:
                link_or_copy(began / f"{name}.safetensors", folder / f"{name}.safetensors")
                continue
            prefix = f"{name}/"
            values = {p: np.asarray(v) for p, v in trained.items() if p.startswith(prefix)}
            values |= {p: fixed.read(p) for p in fixed.specs if p.startswith(prefix)}
            _write(
                folder / f"{name}.safetensors",
                {path.removeprefix(prefix): value for path, value in values.items()},
            )
        for path in _companions(began):
            link_or_copy(path, folder / path.relative_to(began))


def _companions(folder: Path) -> list[Path]:
    """What a converter left beside the networks, for the way back to PyTorch."""
    named = [folder / "manifest.json", folder / "extra.safetensors"]
    files = [path for path in (folder / "files").rglob("*") if path.is_file()]
    return [path for path in named if path.is_file()] + files


def _write(path: Path, values: dict[str, Any]) -> None:
    specs = {key: TensorSpec(value.dtype, value.shape) for key, value in values.items()}
    with TensorFileWriter(path, specs) as writer:
        for key, value in values.items():
            writer.write(key, value)
