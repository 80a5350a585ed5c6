"""`magiccolor evaluate`: which pictures are judged, by what, and the table that is printed."""

import errno
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.table import Table

from magiccolor_jax.data.cases import find_case_files
from magiccolor_jax.evaluation import job
from magiccolor_jax.evaluation.baselines import BASELINES
from magiccolor_jax.evaluation.methods import (
    SWAPPED,
    TRUTH,
    Method,
    baseline,
    folder_method,
    write_swapped,
)
from magiccolor_jax.evaluation.metrics import METRICS
from magiccolor_jax.evaluation.protocol import Protocol, load_protocol
from magiccolor_jax.evaluation.report import Result
from magiccolor_jax.parallel.multihost import Share, share
from magiccolor_jax.sampling import job as coloring
from magiccolor_jax.sampling.colorizer import Colorizer, default_batch_size
from magiccolor_jax.sampling.outputs import hash_model

PAGES = {"cpu": 4}
"""Backend -> pages per device at once; on accelerators `MANY`."""

MANY = 32


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs:
    """Measure coloured pages; write index.html, report.json, cases.csv and instances.csv.

    Judged are folders of pictures (--pred: CASE.png for every case, whoever made them), models
    (--model: they colour the cases first) and baselines that need no weights. What is measured
    already is not measured again. Pages with the first two references exchanged, for the swap
    test, are looked for in PRED/swapped/CASE.png; --write-swapped makes such cases to colour.
    """

    cases: tuple[Path, ...]
    """Case folders, or folders of cases, in the layout with sketch_masks/."""
    out: Path
    """Where the report goes."""
    pred: tuple[str, ...] = ()
    """Folders of pictures, each as DIR or NAME=DIR."""
    model: tuple[str, ...] = ()
    """Model folders, each as DIR or NAME=DIR; their pictures go to OUT/pictures/NAME."""
    baselines: tuple[str, ...] = ()
    """Any of grey, mean_color, by_position, reinhard, nearest_patch; or all."""
    protocol: str = "ours"
    """ours, paper, swapped, or the path of a file like configs/eval/ours.py."""
    networks: tuple[Path, ...] = ()
    """JAX folders with the networks that the protocol takes (LPIPS, Inception, DINOv2, CLIP);
    `magiccolor convert` makes them."""
    fid_truth: Path | None = None
    """Statistics that FID compares with (.npz, of pytorch-fid or of OUT/fid/); default: those of
    the targets."""
    batch_size: int | None = None
    """Pages per device at once; default 4 on CPU, 32 on accelerators."""
    process: str | None = None
    """I/N: this is process I of N and takes every N-th case."""
    write_swapped: Path | None = None
    """Write the cases with the first two references exchanged to this folder, and stop."""
    compilation_cache: Path = Path("~/.cache/magiccolor_jax/compiled")
    """Where compiled programs are kept between runs."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        Exit code: 0 done, 1 failed, 130 interrupted.
    """
    args = tyro.cli(EvaluateArgs, prog="magiccolor evaluate", args=list(arguments))
    try:
        _run(args, Console(stderr=True))
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _complain(f"{args.out}: the disk is full; make room, the same command goes on")
        return _complain(str(error))
    except RuntimeError as error:  # XLA's: the device
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain("the device's memory is full: use a smaller --batch-size")
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from here")
        return 130
    return 0


def _run(args: EvaluateArgs, console: Console) -> None:
    """Does what the arguments say.

    Raises:
        ValueError, OSError: with a message that says what to do.
    """
    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f"batch-size must be at least 1, got {args.batch_size}")
    jax.config.update("jax_compilation_cache_dir", str(args.compilation_cache.expanduser()))
    protocol = load_protocol(args.protocol)
    cases = job.choose_cases(coloring.name_cases(args.cases), protocol)
    if args.write_swapped is not None:
        made = write_swapped(cases, args.write_swapped)
        console.print(f"{len(made)} cases -> {args.write_swapped}")
        return
    coloring.make_folder(args.out)
    device = jax.local_devices()[0]
    console.print(f"{len(cases)} cases on {jax.local_device_count()} x {device.device_kind}")
    if protocol.cases is not None and len(cases) < protocol.cases:
        console.print(f"note: {protocol.name} is about {protocol.cases} cases")
    work = job.Evaluation(
        protocol=protocol,
        cases=cases,
        methods=_methods(args, protocol, cases, console),
        networks=args.networks,
        out=args.out,
        share=share(args.process),
        batch_size=args.batch_size or PAGES.get(device.platform, MANY),
        fid_truth=args.fid_truth,
    )
    result = job.run(work, console)
    if result is not None:
        Console().print(table(result))
        console.print(f"-> {args.out / 'index.html'}", markup=False, soft_wrap=True)


def _methods(
    args: EvaluateArgs, protocol: Protocol, cases: dict[str, Path], console: Console
) -> list[Method]:
    """The truth, if all cases have one, the baselines, the folders, the models.

    Raises:
        ValueError: nothing to judge, two methods of one name, or what a folder lacks.
    """
    wanted = [*(BASELINES if "all" in args.baselines else args.baselines)]
    folders, models = ([_named(text) for text in texts] for texts in (args.pred, args.model))
    names = [*wanted, *(name for name, _ in [*folders, *models])]
    if not names:
        raise ValueError("nothing to judge: give --pred, --model or --baselines")
    if twice := [name for name, count in Counter([TRUTH, *names]).items() if count > 1]:
        raise ValueError(
            f"methods need different names (and {TRUTH!r} is the target's own): got {twice} more "
            "than once; use NAME=DIR"
        )
    known = all(find_case_files(path).target is not None for path in cases.values())
    methods = [baseline(name) for name in [*([TRUTH] if known else []), *wanted]]
    methods += [folder_method(name, folder, cases) for name, folder in folders]
    return methods + [
        _colored(args, protocol, name, model, cases, console) for name, model in models
    ]


def _named(text: str) -> tuple[str, Path]:
    """NAME=DIR, or DIR, which is called as its folder."""
    name, given, path = text.partition("=")
    folder = Path(path if given else text)
    return (name if given else folder.resolve().name), folder


def _colored(
    args: EvaluateArgs,
    protocol: Protocol,
    name: str,
    model: Path,
    cases: dict[str, Path],
    console: Console,
) -> Method:
    """A model, after it has coloured this process' part; with exchanged references where that
    counts.

    Raises:
        ValueError: cases that it could not colour.
    """
    pictures, part = args.out / "pictures" / name, share(args.process)
    mine = dict(part.of(list(cases.items())))
    parts = [(pictures, cases, part)]
    if "swapped" in protocol.metrics:
        swapped = write_swapped(mine, args.out / "swapped_cases")
        parts.append((pictures / SWAPPED, swapped, Share(0, 1)))
    with console.status(f"loading {model}"):
        colorizer, digest = Colorizer.from_pretrained(model), hash_model(model)
    for out, chosen, split in parts:
        coloring.make_folder(out)
        work = coloring.Job(chosen, out, protocol.settings, digest, split, default_batch_size())
        if failed := coloring.run(colorizer, work, console):
            raise ValueError(f"{name}: {failed} cases could not be coloured, as said above")
    return folder_method(name, pictures, mine)


def table(result: Result) -> Table:
    """Means for the terminal."""
    shown = Table(title=f"{result.protocol.name}, {len(result.cases)} cases")
    shown.add_column("", no_wrap=True)
    for method in result.means:
        shown.add_column(method, justify="right")
    for index, name in enumerate(result.protocol.metrics):
        metric = METRICS[name]
        arrow = "\u2191" if metric.better == "higher" else "\u2193"
        means = (found[index] for found in result.means.values())
        cells = ["\u2013" if m is None else f"{m.value:.{metric.digits}f}" for m in means]
        shown.add_row(f"{metric.label} {arrow}", *cells)
    if result.fid:
        found = (result.fid.get(method) for method in result.means)
        shown.add_row("FID \u2193", *("" if x is None else f"{x:.2f}" for x in found))
    return shown


def _complain(text: str) -> int:
    """Prints an error that the user can mend."""
    print(f"magiccolor evaluate: {text}", file=sys.stderr)
    return 1
