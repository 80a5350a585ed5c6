"""A run's checkpoints (Orbax): written beside the training, renamed into place when whole."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.step import TrainState

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file


class Position(NamedTuple):
    """Where the data is read on; on any number of processes."""

    step: int
    """Batches that have been trained on."""
    plan: str
    """`Plan.fingerprint`: the same number means the same batch only in the same plan."""


class Checkpoints:
    """Checkpoints by number of finished steps."""

    def __init__(self, folder: Path, config: SaveConfig | None = None):
        """Args:
        config: None to read only.
        """
        kept = policy.AnyPreservationPolicy(
            [
                policy.LatestN(config.keep if config else None),
                policy.BestN(get_metric_fn=lambda m: m["loss"], reverse=True, n=1),
            ]
        )
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=kept,
                best_fn=lambda metrics: metrics["loss"],
                best_mode="min",
                read_only=config is None,
                create=config is not None,
                cleanup_tmp_directories=config is not None,
            ),
        )

    def steps(self) -> list[int]:
        """All whole checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The one of the smallest loss."""
        return self._manager.best_step()

    def save(self, state: TrainState, position: Position, loss: float) -> None:
        """Begins to write; returns when the values are copied, so that they may be given away."""
        if position.step == self.latest():
            return
        items = {
            "trainable": ocp.args.StandardSave(state.trainable),
            "rest": ocp.args.StandardSave(_rest(state)),
            "position": ocp.args.JsonSave(position._asdict()),
        }
        if state.average is not None:
            items["average"] = ocp.args.StandardSave(state.average)
        self._manager.save(
            position.step, args=ocp.args.Composite(**items), metrics={"loss": loss}, force=True
        )

    def restore(self, step: int, shapes: TrainState, shardings: TrainState) -> tuple[Any, Position]:
        """The state of a checkpoint, born where it lies.

        Raises:
            ValueError: it is of another model or optimiser.
        """
        wanted = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            shapes,
            shardings,
        )
        items = {
            "trainable": ocp.args.StandardRestore(wanted.trainable),
            "rest": ocp.args.StandardRestore(_rest(wanted)),
            "position": ocp.args.JsonRestore(),
        }
        if wanted.average is not None:
            items["average"] = ocp.args.StandardRestore(wanted.average)
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"{self.folder}/{step}: does not fit this training (another model, optimiser or "
                f"average?): {error}; go on with the run's own settings, or choose another --out"
            ) from None
        rest = found["rest"]
        state = TrainState(
            rest["step"], found["trainable"], rest["optimizer"], found.get("average")
        )
        return state, Position(**found["position"])

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _rest(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "optimizer": state.optimizer}
