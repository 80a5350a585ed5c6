"""`magiccolor evaluate`: which pictures are judged, by what, and the table that is printed."""

from collections import Counter
from pathlib import Path

import jax
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from magiccolor_jax.data.cases import find_case_files
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.embedded import model_folder
from magiccolor_jax.evaluation import job
from magiccolor_jax.evaluation.arguments import EvaluateArgs
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
from magiccolor_jax.evaluation.protocol import load_protocol
from magiccolor_jax.evaluation.report import Result
from magiccolor_jax.parallel.multihost import Share, share
from magiccolor_jax.sampling import job as coloring
from magiccolor_jax.sampling.colorizer import Colorizer, default_batch_size
from magiccolor_jax.sampling.outputs import hash_model

PAGES_ON_CPU, PAGES = 4, 32
"""Per device at once."""


def evaluate(args: EvaluateArgs) -> None:
    """Does what the arguments say.

    Raises:
        ValueError, OSError: with a message that says what to do.
    """
    console = Console(stderr=True)
    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f"batch-size must be at least 1, got {args.batch_size}")
    jax.config.update("jax_compilation_cache_dir", str(args.compilation_cache.expanduser()))
    protocol = load_protocol(args.protocol)
    cases = job.choose_cases(coloring.name_cases(args.cases), protocol)
    if not cases:
        raise ValueError("no cases: expected case folders, or folders of them, after --cases")
    if args.write_swapped is not None:
        made = write_swapped(cases, args.write_swapped)
        console.print(f"{len(made)} cases -> {args.write_swapped}", markup=False, soft_wrap=True)
        return
    coloring.make_folder(args.out)
    device = jax.local_devices()[0]
    console.print(f"{len(cases)} cases on {jax.local_device_count()} x {device.device_kind}")
    if protocol.cases is not None and len(cases) < protocol.cases:
        console.print(f"note: {escape(protocol.name)} is about {protocol.cases} cases")
    names, models = _chosen(args)
    work = job.Evaluation(
        protocol=protocol,
        cases=cases,
        methods=_known(args, names, cases),
        networks=args.networks,
        out=args.out,
        share=share(args.process),
        batch_size=args.batch_size or (PAGES_ON_CPU if device.platform == "cpu" else PAGES),
        fid_truth=args.fid_truth,
    )
    if models:  # before they colour for hours
        job.check(work)
    colored = [_colored(work, name, model, console) for name, model in models]
    result = job.run(work._replace(methods=[*work.methods, *colored]), console)
    if result is not None:
        Console().print(table(result))
        console.print(f"-> {args.out / 'index.html'}", markup=False, soft_wrap=True)


Named = list[tuple[str, Path]]


def _chosen(args: EvaluateArgs) -> tuple[list[str], Named]:
    """(baselines, models by name).

    Raises:
        ValueError: nothing to judge, or names that are no plain ones, or one twice.
    """
    baselines = [*(BASELINES if "all" in args.baselines else args.baselines)]
    folders = [_named(text) for text in args.pred]
    models = [(name, model_folder(path)) for name, path in map(_named, args.model)]
    names = [*baselines, *(name for name, _ in [*folders, *models])]
    if not names:
        raise ValueError("nothing to judge: give --pred, --model or --baselines")
    if twice := [name for name, count in Counter([TRUTH, *names]).items() if count > 1]:
        raise ValueError(
            f"methods need different names (and {TRUTH!r} is the target's own): got {twice} more "
            "than once; use NAME=DIR"
        )
    if odd := [name for name in names if Path(name).name != name]:
        raise ValueError(
            f"methods are called by one word, which files are named after: got {odd}; use NAME=DIR"
        )
    return baselines, models


def _known(args: EvaluateArgs, baselines: list[str], cases: dict[str, Path]) -> list[Method]:
    """The truth, if all cases have one, the baselines, and the folders.

    Raises:
        ValueError: no such baseline, or one report of what all folders lack.
    """
    methods = [baseline(name) for name in [*([TRUTH] if _have_truth(cases) else []), *baselines]]
    problems = []
    for name, folder in map(_named, args.pred):
        try:
            methods.append(folder_method(name, folder, cases))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return methods


def _have_truth(cases: dict[str, Path]) -> bool:
    """Whether all cases have a target; a broken case is told of when it is read."""
    for path in cases.values():
        try:
            if find_case_files(path).target is None:
                return False
        except CaseError:
            continue
    return True


def _named(text: str) -> tuple[str, Path]:
    """NAME=DIR, or DIR, which is called as its folder."""
    name, given, path = text.partition("=")
    if given and not Path(text).is_dir():
        return name, Path(path)
    return Path(text).resolve().name, Path(text)


def _colored(work: job.Evaluation, name: str, model: Path, console: Console) -> Method:
    """A model, after it has coloured this process' part; with exchanged references where that
    counts.

    Raises:
        ValueError: cases that it could not colour.
    """
    pictures, mine = work.out / "pictures" / name, dict(work.share.of(list(work.cases.items())))
    parts = [(pictures, work.cases, work.share)]
    if "swapped" in work.protocol.metrics:
        swapped = write_swapped(mine, work.out / "swapped_cases")
        parts.append((pictures / SWAPPED, swapped, Share(0, 1)))
    with console.status(f"loading {escape(str(model))}"):
        colorizer, digest = Colorizer.from_pretrained(model), hash_model(model)
    for out, chosen, split in parts:
        coloring.make_folder(out)
        settings = work.protocol.settings or colorizer.settings()
        size = default_batch_size()
        task = coloring.Job(dict(chosen), out, settings, digest, split, size)
        if failed := coloring.run(colorizer, task, console):
            raise ValueError(f"{name}: {failed} cases could not be coloured, as said above")
    return folder_method(name, pictures, mine)


def table(result: Result) -> Table:
    """Means for the terminal."""
    shown = Table(title=escape(f"{result.protocol.name}, {len(result.cases)} cases"))
    shown.add_column("", no_wrap=True)
    for method in result.means:
        shown.add_column(escape(method), justify="right")
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
