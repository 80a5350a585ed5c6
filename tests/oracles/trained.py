"""The folder of a run that was never run: its start, perturbed as by training, and saved."""

from typing import Any

import jax
import numpy as np

from magiccolor_jax.training.checkpoints import Checkpoints, Position
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.export import CHECKPOINTS, save_fixed, start_folder
from magiccolor_jax.training.initial import find_origins, first_parameters
from magiccolor_jax.training.record import RunRecord
from magiccolor_jax.training.setup import plan_training, trained_model
from magiccolor_jax.training.step import first_state


def write_run(config: TrainConfig, losses: dict[int, float]) -> dict[int, dict[str, np.ndarray]]:
    """Makes the run's folder without compiling a step.

    Args:
        losses: loss of each checkpoint, by its number.

    Returns:
        What each checkpoint holds to be used: path -> value; what is fixed, too.
    """
    start = plan_training(config)
    design, folder = start.design, start_folder(config.init)
    shapes = {path: leaf.shape for path, leaf in design.parameters.items()}
    origins = find_origins(folder, start.source, config.stage, shapes)
    places, dtype = design.parameter_shardings(), design.precision.param_dtype
    values = first_parameters(shapes, origins, places, dtype, config.seed)
    fixed = {path: values[path] for path in design.fixed}
    state = first_state(design.context, {path: values[path] for path in design.trainable})
    save_fixed(config.out, fixed)
    checkpoints = Checkpoints(config.out / CHECKPOINTS, config.save)
    used = {}
    for step, loss in losses.items():
        moved = state._replace(trainable=_moved(state.trainable, step))
        if state.average is not None:
            moved = moved._replace(average=_moved(state.average, step + 1000))
        checkpoints.save(moved, Position(step, "plan"), loss)
        best = moved.trainable if moved.average is None else moved.average
        used[step] = {path: np.asarray(value) for path, value in (fixed | best).items()}
    checkpoints.close()
    record = RunRecord(config, trained_model(start).to_json(), "plan")
    record.update(state="done", step=max(losses), start=str(folder.resolve()))
    return used


def _moved(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """A few percent away, every value by itself."""
    random = np.random.default_rng(seed)
    return {
        path: jax.device_put(
            (np.asarray(x) + 0.03 * random.standard_normal(x.shape, np.float32)).astype(x.dtype),
            x.sharding,
        )
        for path, x in values.items()
    }
