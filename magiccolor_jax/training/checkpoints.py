"""A run's checkpoints (Orbax): written beside the training, renamed into place when whole."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from magiccolor_jax.files import DISK_FULL
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
        """Begins to write; returns when the values are copied, so that they may be given away.

        Raises:
            OSError: the disk is full; here, or when the next one is saved or waited for.
        """
        if position.step == self.latest():
            return
        items = {
            "trainable": ocp.args.StandardSave(state.trainable),
            "rest": ocp.args.StandardSave(_rest(state)),
            "position": ocp.args.JsonSave(position._asdict()),
        }
        if state.average is not None:
            items["average"] = ocp.args.StandardSave(state.average)
        args, metrics = ocp.args.Composite(**items), {"loss": loss}
        with _telling_full_disks(self.folder):
            self._manager.save(position.step, args=args, metrics=metrics, force=True)

    def restore(self, step: int, shapes: TrainState, shardings: TrainState) -> tuple[Any, Position]:
        """The state of a checkpoint, born where it lies.

        Raises:
            ValueError: it is of another model or optimiser, or damaged.
        """
        wanted = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            shapes,
            shardings,
        )
        trees = {"trainable": wanted.trainable, "rest": _rest(wanted)}
        if wanted.average is not None:
            trees["average"] = wanted.average
        where = self.folder / str(step)
        try:
            report = _differences(_stored(where), trees)
            items: dict[str, Any] = {"position": ocp.args.JsonRestore()}
            items |= {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
            args = ocp.args.Composite(**items)
            with _letting_reads_end():
                found = None if report else self._manager.restore(step, args=args)
        except Exception as error:  # whatever reading torn files gives
            older = [number for number in self.steps() if number < step]
            raise ValueError(
                f"{where}: a checkpoint must be whole; remove it, the same command goes on from "
                f"{max(older, default='the start')}. Got {_told(error)}"
            ) from None
        if found is None:
            raise ValueError(
                f"{where}: does not fit this training (another model, optimiser or average):\n"
                f"{report}\ngo on with the run's own settings, or choose another --out"
            )
        rest = found["rest"]
        state = TrainState(
            rest["step"], found["trainable"], rest["optimizer"], found.get("average")
        )
        return state, Position(**found["position"])

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
            OSError: the disk is full.
        """
        with _telling_full_disks(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            OSError: the disk is full.
        """
        try:
            self.wait()
        finally:
            self._manager.close()


TOLD = 300
"""Most characters of a reader's own words."""


def _told(error: BaseException) -> str:
    """The first cause of an error, on a line; what is raised from it holds whole specifications."""
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:TOLD]


class _Loop(asyncio.SelectorEventLoop):
    """Lets its tasks end before it closes."""

    def close(self) -> None:
        tasks = () if self.is_closed() else asyncio.all_tasks(self)
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextmanager
def _letting_reads_end() -> Iterator[None]:
    """Orbax closes its loop at the first read that fails and leaves the others in the middle.

    Each would be told of when it is collected, at any later time, or when TensorStore calls the
    closed loop. Cancelling them does not keep TensorStore from that.
    """
    usual = asyncio.new_event_loop
    asyncio.new_event_loop = _Loop
    try:
        yield
    finally:
        asyncio.new_event_loop = usual


@contextmanager
def _telling_full_disks(folder: Path) -> Iterator[None]:
    """TensorStore says so in the text of a ValueError."""
    try:
        yield
    except ValueError as error:
        code = next((n for n in DISK_FULL if f"os_error_code='{n}'" in str(error)), None)
        if code is None:
            raise
        raise OSError(code, "no room for a checkpoint", str(folder)) from None


ITEMS = ("trainable", "rest", "average")

DIFFERENCES = 8
"""Most that are listed."""


def _stored(checkpoint: Path) -> dict[str, Any]:
    """Shapes and types of a checkpoint's items."""
    handler, folder = ocp.PyTreeCheckpointHandler(), cast(Any, checkpoint.absolute())
    there = [item for item in ITEMS if (folder / item).is_dir()]
    return {item: handler.metadata(folder / item).tree for item in there}


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What a checkpoint lacks, or has otherwise, by item and path; empty where nothing."""
    report = []
    for item in ITEMS:
        there, here = _flat(stored.get(item)), _flat(wanted.get(item))
        for path in sorted(there.keys() | here.keys()):
            pair = here.get(path, "nothing"), there.get(path, "nothing")
            if pair[0] != pair[1]:
                report.append("  {}{}: expected {}, got {}".format(item, path, *pair))
    more = len(report) - DIFFERENCES
    return "\n".join(report[:DIFFERENCES] + ([f"  and {more} more"] if more > 0 else []))


def _flat(tree: Any) -> dict[str, str]:
    """Path -> shape and type of the arrays of a tree, or of what is known of a stored one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "".join(f"/{_name(key)}" for key in keys): f"{tuple(x.shape)} {x.dtype}"
        for keys, x in leaves
    }


def _name(key: Any) -> str:
    """A step of a path: stored trees know lists and dicts where ours have tuples."""
    return str(next(getattr(key, n) for n in ("key", "idx", "name") if hasattr(key, n)))


def _rest(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "optimizer": state.optimizer}
