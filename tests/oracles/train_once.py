"""Runs a small training in a process of its own: `python train_once.py FOLDER [options]`.

--die-at STEP       kill -9 after that step was reported, once the checkpoints before it are whole
--die-in-save STEP  kill -9 while that step's checkpoint is being written
--term-at STEP      SIGTERM to itself after that step
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", default="run")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--die-in-save", type=int)
    parser.add_argument("--term-at", type=int)
    parser.add_argument("--look", action="store_true", help="validate and preview")
    parser.add_argument("--profile", type=int, nargs=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--mesh", type=int, nargs=3, default=(-1, 1, 1))
    parser.add_argument("--process", type=int, nargs=2, help="number, count")
    parser.add_argument("--port", type=int)
    return parser.parse_args()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(args: argparse.Namespace) -> None:
    """Puts the accidents into the training."""
    from magiccolor_jax.training import checkpoints, reports

    tell, save = reports.Reporter.scalars, checkpoints.Checkpoints.save

    def scalars(self, step, values):
        tell(self, step, values)
        if step == args.die_at:
            while list((args.folder / args.out / "checkpoints").glob("*tmp*")):
                time.sleep(0.01)
            kill()
        if step == args.term_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def saves(self, state, position, loss):
        save(self, state, position, loss)
        if position.step == args.die_in_save:
            kill()

    reports.Reporter.scalars, checkpoints.Checkpoints.save = scalars, saves


def main() -> int:
    args = arguments()
    import jax

    if not args.process:
        # Process 0 alone would find its program there, and CPU's collectives wait for 30 seconds.
        jax.config.update("jax_compilation_cache_dir", str(args.folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    from oracles.runs import cheap_run, looking
    from rich.console import Console

    from magiccolor_jax.parallel.multihost import Distributed, connect
    from magiccolor_jax.training.config import ReportConfig
    from magiccolor_jax.training.loop import Training
    from magiccolor_jax.training.setup import plan_training

    if args.process:
        number, count = args.process
        connect(Distributed(coordinator=f"127.0.0.1:{args.port}", processes=count, process=number))
    arm(args)
    changes = looking(args.folder) if args.look else {}
    if args.profile:
        changes["report"] = ReportConfig(every=1, preview_every=0, profile=tuple(args.profile))
    out, mesh = args.folder / args.out, tuple(args.mesh)
    config = cheap_run(args.folder, out=out, batch=args.batch, mesh=mesh, **changes)
    return Training(plan_training(config), Console(stderr=True)).run()


if __name__ == "__main__":
    sys.exit(main())
