"""`magiccolor prepare`: pictures, video and data sets in, shards to train on out."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from magiccolor_jax.data.listing import some_names
from magiccolor_jax.files import atomic_file, locked, remove_rests, sha256_of
from magiccolor_jax.prepare.arguments import PrepareArgs, SegmentArgs
from magiccolor_jax.prepare.chunks import (
    HELD_OUT,
    TRAIN,
    Chunk,
    Note,
    divide,
    make_chunks,
    publish,
    read_note,
)
from magiccolor_jax.prepare.clips import Clip, Surveyor, clip_units
from magiccolor_jax.prepare.coco import Folders
from magiccolor_jax.prepare.credits import check_credits, read_credits
from magiccolor_jax.prepare.extracting import XDOG, load_extractor
from magiccolor_jax.prepare.gallery import PAGE, PICTURES, write_gallery
from magiccolor_jax.prepare.inputs import KINDS, Around, Inputs, list_inputs
from magiccolor_jax.prepare.making import Given, Made, Maker, check_given
from magiccolor_jax.prepare.marks import mark_of
from magiccolor_jax.prepare.matching import by_colors, by_dinov2
from magiccolor_jax.prepare.pictures import open_output
from magiccolor_jax.prepare.results import JOB
from magiccolor_jax.prepare.segmenting import Cutter
from magiccolor_jax.prepare.shots import ShotConfig
from magiccolor_jax.prepare.stills import Bad, Unit
from magiccolor_jax.prepare.summary import STATISTICS, write_reports
from magiccolor_jax.sampling.outputs import hash_model
from magiccolor_jax.sampling.pipeline import threaded_map
from magiccolor_jax.segment.objects import ObjectConfig

VERSION = 3
"""Of what the same inputs and settings give."""

WORK, SURVEYS = "work", "surveys"

RUNTIME = frozenset({"out", "workers", "compilation_cache", "converted", "inputs", "credits"})
"""Arguments that the records do not depend on, or that are compared by what they name."""

MODELS = ("model", "line_model", "dinov2")

CUTTING = (
    *("out", "model", "min_area", "max_count", "points_per_side", "points_per_batch"),
    *("pred_iou_thresh", "stability_score_thresh"),
)
"""Arguments that are also those of `magiccolor segment`."""

MOST_NAMED = 10
"""Things that are left out, in one error."""


def run(args: PrepareArgs, line_model: Path | None, console: Console) -> int:
    """Prepares what is not prepared yet.

    Args:
        line_model: the folder of the network that draws sketches.

    Returns:
        How many pictures or files were left out.

    Raises:
        ValueError, OSError: arguments, inputs or models do not fit; the disk is full; an input has
            gone or changed.
    """
    _check(args)
    _check_folder(args.out)
    objects = ObjectConfig(min_area=args.min_area, max_count=args.max_count)
    shots = ShotConfig(stride=args.stride, cut=args.cut, alike=args.alike)
    given = {"licence": args.licence, "author": args.author, "source": args.source}
    credits = read_credits(given, args.credits)
    folders = [path for path in (args.masks, args.sketches) if path]
    around = Around(args.out, (*folders,), credits, Folders(args.images, args.masks), objects)
    with console.status("looking through the inputs"):
        inputs = list_inputs(args.inputs, around)
    if inputs.aside:
        names = some_names([*map(str, inputs.aside)])
        said = f"not looked at, as results of `magiccolor segment`, `lineart` or `prepare`: {names}"
        console.print(said, markup=False, soft_wrap=True)
    origins = {each.name: each.provenance for each in inputs.listed}
    check_credits(origins)
    if unused := credits.unused(origins):
        said = (
            f"{args.credits}: of nothing in the inputs: {some_names(unused)}; a name has no suffix"
        )
        console.print(said, markup=False, soft_wrap=True)
    check_given(Given(args.masks, args.sketches), inputs.listed)
    contents = "\n".join([inputs.contents, *(mark_of(path, [args.out]) for path in folders)])
    open_output(args.out)
    with locked(args.out / ".lock", "preparation"):
        made_by = _made_by(args, line_model, contents)
        if not _begin(args.out, made_by):
            Job(args, line_model, shots, inputs, console).run()
            _write_job(args.out, made_by, finished=True)
        shutil.rmtree(args.out / WORK, ignore_errors=True)
    return _tell_end(args.out, console)


def _check(args: PrepareArgs) -> None:
    """Raises ValueError where an argument is out of its range, or there is no input."""
    if not args.inputs:
        raise ValueError(f"no input: expected KIND:PATH or PATH, with one of {', '.join(KINDS)}")
    rules = {
        "--side": (args.side >= 64, "at least 64 pixels", args.side),
        "--reach": (args.reach >= 1, "at least 1", args.reach),
        "--held-out": (0 <= args.held_out < 1, "a share in [0, 1)", args.held_out),
        "--records-per-shard": (args.records_per_shard >= 1, "at least 1", args.records_per_shard),
        "--workers": (args.workers >= 1, "at least 1", args.workers),
        "--sample": (args.sample >= 0, "at least 0", args.sample),
    }
    for name, (holds, expected, got) in rules.items():
        if not holds:
            raise ValueError(f"{name}: expected {expected}, got {got}")
    for name in ("masks", "sketches", "images"):
        path = getattr(args, name)
        if path is not None and not path.is_dir():
            raise ValueError(f"--{name} {path}: expected a folder, got none; check the path")


def _check_folder(out: Path) -> None:
    """Raises ValueError where something else than a preparation stands at the place of results."""
    if not out.exists() or (out / JOB).is_file():
        return
    begun = (".lock", f".{JOB}.")
    if not out.is_dir() or not all(path.name.startswith(begun) for path in out.iterdir()):
        raise ValueError(
            f"{out}: expected a new folder, or one of an earlier `magiccolor prepare` "
            f"({JOB}), got another; choose another --out"
        )


def _made_by(args: PrepareArgs, line_model: Path | None, contents: str) -> dict[str, Any]:
    """All that the records depend on."""
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in (*RUNTIME, *MODELS)
    }
    models = {"model": args.model, "line_model": line_model, "dinov2": args.dinov2}
    return {
        "version": f"{version('magiccolor_jax')}.{VERSION}",
        "inputs": list(args.inputs),
        "contents": hashlib.sha256(contents.encode(errors="surrogatepass")).hexdigest(),
        "credits": sha256_of(args.credits) if args.credits else None,
        **settings,
        **{name: hash_model(path) if path else None for name, path in models.items()},
    }


def _begin(out: Path, made_by: dict[str, Any]) -> bool:
    """Notes what is prepared here; whether that was finished.

    Raises:
        ValueError: something else was begun here.
    """
    path = out / JOB
    if not path.is_file():
        _write_job(out, made_by, finished=False)
        return False
    try:
        content = json.loads(path.read_text())
        before, finished = dict(content["made_by"]), bool(content["finished"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path}: expected what `magiccolor prepare` wrote, got {error}; choose another --out"
        ) from None
    now = json.loads(json.dumps(made_by))
    differ = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if differ:
        said = [
            "other files in the inputs, --masks or --sketches now"
            if name == "contents"
            else f"{name}: {before.get(name)!r} then, {now.get(name)!r} now"
            for name in differ
        ]
        raise ValueError(
            f"{out}: a folder holds what one command prepared of the same files: expected those of "
            f"the run that began it, got {'; '.join(said)}; run that command, or choose another "
            "--out"
        )
    return finished


def _write_job(out: Path, made_by: dict[str, Any], *, finished: bool) -> None:
    with atomic_file(out / JOB) as temporary:
        temporary.write_text(
            json.dumps({"made_by": made_by, "finished": finished}, indent=1) + "\n"
        )


def _tell_end(out: Path, console: Console) -> int:
    """Says what is there; how many were left out.

    Raises:
        ValueError: what was finished is not there any more.
    """
    names, found = [STATISTICS, PAGE], {}
    if (out / STATISTICS).is_file():
        found = json.loads((out / STATISTICS).read_text())
        names += [split for split in (TRAIN, HELD_OUT) if found[split]["records"]]
    if gone := [name for name in names if not (out / name).exists()]:
        raise ValueError(
            f"{out}: what was finished is kept: expected {', '.join(names)}, got no "
            f"{', '.join(gone)}; put it back, or choose another --out"
        )
    sizes = ", ".join(f"{found[split]['records']} {split}" for split in (TRAIN, HELD_OUT))
    said = f"{sizes}, {found['skipped']} left out -> {out}/index.html"
    console.print(said, markup=False, soft_wrap=True)
    return found["skipped"]


class Job:
    """One run: clips are looked through, units become shards, and these are published."""

    def __init__(
        self,
        args: PrepareArgs,
        line_model: Path | None,
        shots: ShotConfig,
        inputs: Inputs,
        console: Console,
    ):
        """Raises ValueError, OSError: a model does not fit, or is none."""
        self._args, self._shots, self._inputs, self._console = args, shots, inputs, console
        self._work = args.out / WORK
        cutter = Cutter(SegmentArgs(pictures=(), **{n: getattr(args, n) for n in CUTTING}), {})
        extractor = load_extractor(args.method, line_model)
        look = by_dinov2(args.dinov2) if args.dinov2 else by_colors()
        networks = args.model is not None or extractor.method.name != XDOG
        given = Given(args.masks, args.sketches)
        self._make = Maker(cutter, extractor, look, given, inputs.watch, args.side, lone=networks)
        self._who = f"instances by {cutter.who}; found again by {look.about}; sketches by "
        self._who += extractor.method.name

    def run(self) -> None:
        """Does what is left to do.

        Raises:
            ValueError: no record could be made.
            OSError: the disk is full, or an input has gone; the same command goes on.
        """
        args = self._args
        for folder in (args.out, args.out / PICTURES, self._work, self._work / SURVEYS):
            remove_rests(folder)
        self._console.print(self._who, markup=False, soft_wrap=True)
        units, surveyed = self._units()
        chunks = divide(units, args.held_out, args.seed, args.records_per_shard)
        if args.held_out and all(chunk.split == TRAIN for chunk in chunks):
            clips = len({unit.clip for unit in units})
            self._console.print(
                f"none of {clips} clips is held out: the hash of their names decides; for some, "
                "raise --held-out, change --seed, or divide a film with --split-by shot"
            )
        self._make_chunks(chunks)
        notes = [note for chunk in chunks if (note := read_note(self._work, chunk))]
        assert len(notes) == len(chunks), "all have been made"
        self._check_some(notes, surveyed)
        publish(args.out, self._work, chunks, notes)
        found = write_reports(args.out, notes, surveyed)
        write_gallery(args.out, found, args.sample)

    def _units(self) -> tuple[list[Unit], list[Bad]]:
        """All units, in order, and what clips hold that is bad."""
        clips = [each for each in self._inputs.listed if isinstance(each, Clip)]
        surveys = {}
        if clips:
            with _Bar(self._console, "clips", len(clips), "frames") as bar:
                survey = Surveyor(self._shots, self._work / SURVEYS, self._inputs.watch, bar.count)
                workers = self._args.workers
                results = threaded_map(survey, clips, ahead=2 * workers, workers=workers)
                for clip, found in zip(clips, results, strict=True):
                    surveys[clip.name] = found
                    bar.advance(1)
                    bar.complain(found.bad)
        units: list[Unit] = []
        by_shot = self._args.split_by == "shot"
        for each in self._inputs.listed:
            if isinstance(each, Clip):
                found = surveys[each.name]
                units += clip_units(each, found, reach=self._args.reach, by_shot=by_shot)
            else:
                units.append(each)
        return units, [bad for found in surveys.values() for bad in found.bad]

    def _make_chunks(self, chunks: Sequence[Chunk]) -> None:
        """Makes the shards that are not there."""
        todo = [chunk for chunk in chunks if read_note(self._work, chunk) is None]
        total = sum(unit.scenes for chunk in chunks for unit in chunk.units)
        left = sum(unit.scenes for chunk in todo for unit in chunk.units)
        with _Bar(self._console, "pictures", total, "pictures") as bar:
            bar.advance(total - left)

            def tell(unit: Unit, made: Made) -> None:
                bar.count(unit.scenes)
                bar.advance(unit.scenes)
                bar.complain(made.bad)

            make_chunks(self._work, todo, self._make, self._args.workers, tell)
            bar.sum_up()

    def _check_some(self, notes: Sequence[Note], surveyed: Sequence[Bad]) -> None:
        """Raises ValueError where no record could be made."""
        if any(note.records for note in notes):
            return
        bad = [*surveyed, *(each for note in notes for each in note.bad)]
        shown = "\n".join(f"  {each.name}: {each.reason}" for each in bad[:MOST_NAMED])
        raise ValueError(
            f"{self._args.out}: expected at least one picture that can be prepared, got "
            f"{len(bad)} that cannot; mend them, and use another --out:\n{shown}"
        )


class _Bar:
    """Progress on the console, with a rate; threads may count."""

    def __init__(self, console: Console, what: str, total: int, counted: str):
        """
        Args:
            what: is done, `total` times.
            counted: what the rate is of.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(what, total=total, rate="")
        self._counted, self._number, self._started = counted, 0, time.monotonic()

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def count(self, number: int) -> None:
        """So many more of what the rate is of."""
        self._number += number
        self._progress.update(self._task, rate=self._rate())

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{self._number / seconds:.1f} {self._counted}/s"

    def advance(self, number: int) -> None:
        """So many more are done."""
        self._progress.advance(self._task, number)

    def complain(self, bad: Sequence[Bad]) -> None:
        """Names what is left out."""
        for name, reason in bad:
            text = f"[red]left out[/red] {escape(name)}: {escape(reason)}"
            self._progress.console.print(text, soft_wrap=True, highlight=False)

    def sum_up(self) -> None:
        """Says how fast it went."""
        if self._number:
            seconds = time.monotonic() - self._started
            said = f"{self._number} {self._counted} in {seconds:.1f} s, {self._rate()}"
            self._progress.console.print(said, highlight=False)
