"""`magiccolor train`: presets, flags, processes, exit codes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from magiccolor_jax.files import is_disk_full
from magiccolor_jax.parallel.multihost import Distributed, connect
from magiccolor_jax.training.autoencoder import AutoencoderConfig, AutoencoderTraining
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.encoder import EncoderConfig, EncoderTraining
from magiccolor_jax.training.loop import FAILED, Training
from magiccolor_jax.training.presets import load_preset
from magiccolor_jax.training.pretraining import PretrainingConfig
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.tables import show

TABLE_WIDTH = 140
"""Characters; paths of parameters are long, and the tables are often written to a file."""


@dataclass(frozen=True, kw_only=True)
class TrainArgs(TrainConfig):
    """Train one stage.

    The run's folder gets checkpoints/, metrics.jsonl, TensorBoard events, previews/ and run.json.
    The same command goes on where an earlier one ended, wherever that was. Exit code 0: done,
    1: failed, 75: preempted, run it again.
    """

    dry_run: bool = False
    """Print the tables of parameters, memory and shardings, and stop; nothing is allocated."""
    distributed: Distributed = field(default_factory=Distributed)
    """How the processes of a training find each other."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderArgs(AutoencoderConfig):
    """Train the autoencoder, where no pretrained one is at hand.

    The run's folder gets checkpoints/, metrics.jsonl, TensorBoard events, previews/, settings.json
    and, at the end, model/ with the autoencoder. The same command goes on where an earlier one
    ended. Exit code 0: done, 1: failed, 75: preempted, run it again.
    """

    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


@dataclass(frozen=True, kw_only=True)
class EncoderArgs(EncoderConfig):
    """Train the reference encoder, where no pretrained DINOv2 is at hand.

    It learns which patches of two views show the same part of a drawing. The run's folder gets what
    an autoencoder's gets; model/ has the encoder. The same command goes on where an earlier one
    ended. Exit code 0: done, 1: failed, 75: preempted, run it again.
    """

    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


ALONE: dict[str, tuple[Any, Any]] = {
    "network": (AutoencoderArgs, AutoencoderTraining),
    "encoder": (EncoderArgs, EncoderTraining),
}
"""A field that only these presets have -> the settings and the training of one network."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: a preset, then flags.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage, 75 preempted.
    """
    try:
        preset = _with(load_preset(arguments[0]))
        kind = type(preset)
    except (ValueError, OSError, TypeError) as error:
        print(f"magiccolor train: {arguments[0]}: {error}", file=sys.stderr)
        return 2
    prog = f"magiccolor train {arguments[0]}"
    args = tyro.cli(kind, prog=prog, default=preset, args=list(arguments[1:]))
    try:
        return _run(args) if isinstance(args, TrainArgs) else _run_alone(args)
    except (ValueError, OSError) as error:
        return _complain(_full(args) if is_disk_full(error) else str(error))
    except RuntimeError as error:  # XLA's: the device
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain(
            "the device's memory is full: use a smaller --batch or a larger --accumulate, --remat "
            "full, more devices along fsdp, or --optim.kind adafactor; --dry-run shows what takes "
            "how much"
        )


def _with(preset: dict[str, Any]) -> TrainArgs | PretrainingConfig:
    """A preset's settings; what it leaves open must be given."""
    kind: Any = TrainArgs
    open_fields: dict[str, Any] = {"out": Path(), "init": Path()}
    for mark, (args, _) in ALONE.items():
        if mark in preset:
            kind, open_fields = args, {"out": Path(), "sources": ()}
    args = kind(**(open_fields | preset))
    for name in open_fields.keys() - preset.keys():
        object.__setattr__(args, name, tyro.MISSING)  # tyro's mark is no Path
    return args


def _run_alone(args: Any) -> int:
    _keep_programs(args.compilation_cache)
    console = Console(stderr=True)
    training = next(training for kind, training in ALONE.values() if isinstance(args, kind))
    console.print(f"{training.NAME} on {jax.local_devices()[0].device_kind}")
    return training(args, console).run()


def _keep_programs(folder: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder.expanduser()))


def _run(args: TrainArgs) -> int:
    connect(args.distributed)
    _keep_programs(args.compilation_cache)
    console = Console(stderr=True, quiet=jax.process_index() > 0)
    kind = jax.devices()[0].device_kind
    console.print(
        f"{args.stage.name} on {jax.device_count()} x {kind}, {jax.process_count()} processes"
    )
    if args.dry_run:
        # A laptop can tell how a pod would be filled.
        elsewhere = min(args.mesh) > 0 and prod(args.mesh) != jax.device_count()
        show(plan_training(args, imagined=elsewhere), Console(width=TABLE_WIDTH))
        return 0
    return Training(plan_training(args), console).run()


def _full(args: TrainArgs | PretrainingConfig) -> str:
    return (
        f"{args.out}: the disk is full; the last whole checkpoint is safe: make room (fewer with "
        "--save.keep), the same command goes on"
    )


def _complain(text: str) -> int:
    print(f"magiccolor train: {text}", file=sys.stderr)
    return FAILED
