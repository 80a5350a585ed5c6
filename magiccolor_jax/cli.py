"""The `magiccolor` command. Nothing heavy is imported before a subcommand is known."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from magiccolor_jax.embedded import DEFAULT, case_folder, model_folder
from magiccolor_jax.files import is_disk_full
from magiccolor_jax.recipe import Finish

USAGE = """usage: magiccolor COMMAND [ARGUMENTS]

Multi-instance sketch colourisation: every masked region of a line-art page takes its colours from
its own reference picture.

commands:
{commands}

`magiccolor COMMAND --help` explains a command. A first picture from nothing: `make demo`.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 something failed, 2 wrong usage."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code."""
    # NumPy's own threads would wait for cores that XLA keeps busy; Grain's share the work out.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        lines = [f"  {key:10} {command.summary}" for key, command in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)))
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"magiccolor: unknown command {name!r}; known are {known}", file=sys.stderr)
        return 2
    return COMMANDS[name].run(rest)


@dataclass(frozen=True, kw_only=True)
class ColorizeArgs:
    """Colour case folders.

    A case holds sketch.png, references/1.png .. and sketch_masks/1.png .. (white where the instance
    is), optionally reference_masks/. A folder of cases is walked. Finished cases are skipped on a
    re-run; a bad case is reported, the rest go on, and the exit code is 1.
    """

    cases: tyro.conf.Positional[tuple[Path, ...]]
    """Case folders, folders of cases, or an embedded case: concert_36, dice_20, renpy_33 or
    streamline_08."""
    model: Path = Path(DEFAULT)
    """Model folder, made by `magiccolor convert`; or `tiny`, the embedded one."""
    out: Path
    """Where the pictures and manifest.json go."""
    seed: int = 123
    """The same case and seed give the same picture, alone or in any batch."""
    steps: int | None = None
    """Denoising steps; default what suits the model."""
    guidance: float | None = None
    """Guidance scale; 1 switches guidance off and halves the work; default what suits the model."""
    sampler: str | None = None
    """ddim or dpmpp_2m; default what suits the model."""
    recipe: str | None = None
    """paper or release; default what the model was trained for."""
    finish: Finish | None = None
    """network: its page, resized; lines: its colours under the sketch's own lines, at the sketch's
    size, and what no mask marks as it was; lines_everywhere: that coloured too. Default what the
    model was made for."""
    finish_reach: int | None = None
    """How far colours are evened out between lines, in pixels of the network's page: 1 keeps all
    that it drew, 16 makes plain areas plain. Default what suits the model."""
    layers: bool = False
    """Also write lines, colours, each instance's flat colours and mask to NAME.layers/."""
    batch_size: int | None = None
    """Cases per launch and device at most; default 1 on CPU, 4 on accelerators."""
    precision: str | None = None
    """float32 or bfloat16; default float32 on CPU, bfloat16 on accelerators."""
    process: str | None = None
    """I/N: this is process I of N and takes every N-th case."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


def _colorize(rest: list[str]) -> int:
    args = tyro.cli(ColorizeArgs, prog="magiccolor colorize", args=rest)
    if not args.cases:
        _complain("colorize: expected at least one case folder, got none")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a preemption is a Ctrl-C to us
    return _told("magiccolor", args.out, lambda: _run_colorize(args))


def _told(who: str, out: Path, run: Callable[[], int], smaller: str = "--batch-size") -> int:
    """Runs a command that works case by case into a folder, and tells what broke it off.

    Args:
        who: speaks in errors.
        run: gives the exit code.
        smaller: flag that saves the device's memory.
    """
    try:
        return run()
    except (ValueError, OSError) as error:
        if is_disk_full(error):
            return _complain(f"{out}: the disk is full; make room, the same command goes on", who)
        return _complain(str(error), who)
    except RuntimeError as error:  # XLA's: the device
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain(f"the device's memory is full: use a smaller {smaller}", who)
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from here", who)
        return 130


def _run_colorize(args: ColorizeArgs) -> int:
    """Exit code of the command.

    Raises:
        ValueError, OSError: with a message that says what to do.
    """
    import jax
    from rich.markup import escape

    from magiccolor_jax.parallel.multihost import share
    from magiccolor_jax.sampling import job
    from magiccolor_jax.sampling.colorizer import Colorizer, default_batch_size
    from magiccolor_jax.sampling.outputs import hash_model

    jax.config.update("jax_compilation_cache_dir", str(args.compilation_cache.expanduser()))
    console = _console()
    folders = [case_folder(path) for path in args.cases]
    names, part = job.name_cases(folders), share(args.process)
    job.make_folder(args.out)
    device = jax.local_devices()[0]
    console.print(
        f"{len(part.of(list(names)))} cases on {jax.local_device_count()} x {device.device_kind}"
    )
    with console.status(f"loading {escape(str(args.model))}"):
        folder = model_folder(args.model)
        colorizer = Colorizer.from_pretrained(
            folder,
            recipe=args.recipe,
            precision=args.precision,
            finish=args.finish,
            finish_reach=args.finish_reach,
        )
        settings = colorizer.settings(
            seed=args.seed, steps=args.steps, guidance=args.guidance, sampler=args.sampler
        )
        model = hash_model(folder)
    size = default_batch_size() if args.batch_size is None else args.batch_size
    work = job.Job(names, args.out, settings, model, part, size, args.layers)
    return 1 if job.run(colorizer, work, console) else 0


def _console() -> Any:
    """Where progress goes: standard error, with this package's warnings above the bar."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    logger = logging.getLogger("magiccolor_jax")
    logger.handlers = [RichHandler(console=console, show_time=False, show_path=False)]
    logger.propagate = False
    return console


def _convert(rest: list[str]) -> int:
    from converters.command import ConvertArgs
    from converters.command import main as convert

    return convert(tyro.cli(ConvertArgs, prog="magiccolor convert", args=rest))


def _train(rest: list[str]) -> int:
    if not rest or rest[0] in ("-h", "--help"):
        from magiccolor_jax.training.presets import usage

        print(usage())
        return 0
    from magiccolor_jax.training.command import main as train

    return train(rest)


def _evaluate(rest: list[str]) -> int:
    from magiccolor_jax.evaluation.arguments import EvaluateArgs

    args = tyro.cli(EvaluateArgs, prog="magiccolor evaluate", args=rest)

    def run() -> int:
        from magiccolor_jax.evaluation.command import evaluate

        evaluate(args)
        return 0

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _told("magiccolor evaluate", args.out, run)


def _segment(rest: list[str]) -> int:
    from magiccolor_jax.prepare.arguments import SegmentArgs

    args = tyro.cli(SegmentArgs, prog="magiccolor segment", args=rest)

    def work() -> int:
        from magiccolor_jax.prepare import segmenting

        return segmenting.run(args, _console())

    return _worked_through("segment", args, "--points-per-batch", work)


def _lineart(rest: list[str]) -> int:
    from magiccolor_jax.prepare.arguments import LineArtArgs

    args = tyro.cli(LineArtArgs, prog="magiccolor lineart", args=rest)

    def work() -> int:
        from magiccolor_jax.prepare import extracting

        return extracting.run(args, _line_folder(args.model, args.converted), _console())

    return _worked_through("lineart", args, "--size", work)


def _prepare(rest: list[str]) -> int:
    from magiccolor_jax.prepare.arguments import PrepareArgs

    args = tyro.cli(PrepareArgs, prog="magiccolor prepare", args=rest)

    def work() -> int:
        from magiccolor_jax.prepare import preparing

        return preparing.run(args, _line_folder(args.line_model, args.converted), _console())

    return _worked_through("prepare", args, "--points-per-batch", work)


def _worked_through(name: str, args: Any, smaller: str, work: Callable[[], int]) -> int:
    """Exit code of a command that goes through pictures.

    Args:
        smaller: flag that saves the device's memory.
        work: gives the number of pictures that failed.
    """

    def run() -> int:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(args.compilation_cache.expanduser()))
        return 1 if work() else 0

    return _told(f"magiccolor {name}", args.out, run, smaller)


def _line_folder(model: Path | None, kept: Path) -> Path | None:
    """A line extractor's folder: a file of PyTorch's is converted, once for all runs of this
    version.

    Raises:
        ValueError: it is no such network, or PyTorch is needed to read it.
        OSError: it cannot be read, or the folder cannot be written.
    """
    if model is None or not model.is_file():
        return model
    from importlib.metadata import version

    from converters.single import plan_network
    from converters.to_jax import convert_to_jax
    from magiccolor_jax.files import sha256_of
    from magiccolor_jax.lineart.networks import NETWORKS

    kinds = [network.kind for network in NETWORKS.values()]
    folder = kept.expanduser() / f"{sha256_of(model)[:16]}-{version('magiccolor_jax')}"
    try:
        if not folder.exists():
            plan = plan_network(model, kind=None, config=None)
            if not plan.model.networks.keys() & set(kinds):
                raise ValueError(
                    f"{model}: expected one of the networks {', '.join(kinds)}, got "
                    f"{', '.join(plan.model.networks)}; take another --model"
                )
            convert_to_jax(plan, folder)
    except ImportError as error:
        raise ValueError(str(error)) from None
    except FileExistsError:
        pass  # another run was faster
    return folder


def _complain(text: str, who: str = "magiccolor") -> int:
    """Prints an error that the user can mend; a traceback would only hide it."""
    print(f"{who}: {text}", file=sys.stderr)
    return 1


class Command(NamedTuple):
    """A subcommand."""

    summary: str
    run: Callable[[list[str]], int]


COMMANDS = {
    "colorize": Command("case folders and a model -> coloured pictures", _colorize),
    "train": Command("one stage of the training, from a preset", _train),
    "evaluate": Command("coloured pages -> numbers beside baselines, one report", _evaluate),
    "segment": Command("pictures -> masks of their instances", _segment),
    "lineart": Command("coloured pictures -> their lines", _lineart),
    "prepare": Command("pictures, video, data sets -> shards to train on", _prepare),
    "convert": Command("PyTorch checkpoints <-> JAX model folders", _convert),
}
