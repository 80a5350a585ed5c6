"""A night's work: many case folders in, a folder of pictures out (`magiccolor colorize`)."""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from magiccolor_jax.data.cases import find_cases
from magiccolor_jax.parallel.multihost import Share
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.colorizer import Colored, Colorizer, Failed, Settings
from magiccolor_jax.sampling.finishing import layers
from magiccolor_jax.sampling.outputs import (
    Manifest,
    hash_case,
    is_foreign,
    read_made_by,
    write_picture,
)
from magiccolor_jax.sampling.pipeline import WORKERS, threaded_map

TELL_INTERVAL = 30.0
"""Seconds between two lines of progress where there is no terminal."""

CHECK_AHEAD = 4 * WORKERS
"""Cases that are compared with their finished pictures before they are due."""


class Job(NamedTuple):
    """What a run is asked to do."""

    cases: dict[str, Path]
    """Name of the output, relative and without suffix -> case folder."""
    out: Path
    settings: Settings
    model: str
    """Identifies the weights in the pictures' metadata."""
    share: Share
    batch_size: int
    layers: bool = False
    """Write the parts of each page too, to NAME.layers/."""


def name_cases(paths: Iterable[Path]) -> dict[str, Path]:
    """Output name of every case: its folder's name, or its path below the folder that was walked.

    Raises:
        ValueError: two cases would write the same file.
    """
    names: dict[str, Path] = {}
    for root in paths:
        for case in find_cases([root]):
            name = case.resolve().name if case == root else case.relative_to(root).as_posix()
            if names.setdefault(name, case).resolve() != case.resolve():
                raise ValueError(
                    f"outputs are named after their cases: {names[name]} and {case} would both be "
                    f"{name}.png; colour them into different folders"
                )
    return names


def make_folder(out: Path) -> None:
    """Makes the output folder, so that a wrong one is an error before any work is done.

    Raises:
        ValueError: it is a file, or nobody may write there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        problem = None if os.access(out, os.W_OK | os.X_OK) else "no permission to write"
    except OSError as error:
        problem = error.strerror
    if problem:
        raise ValueError(f"out must be a folder that can be written to, got {out}: {problem}")


def run(colorizer: Colorizer, job: Job, console: Console) -> int:
    """Colours what is not done yet; a bad case is reported and the rest go on.

    Returns:
        How many cases failed.

    Raises:
        ValueError: a setting does not suit the model, or layers are asked of whole pages.
        OSError: the disk is full; what was done stays, and a re-run goes on from there.
    """
    manifest = Manifest(_manifest_path(job), _about(colorizer, job))
    try:
        with _progress(console) as progress:
            _Run(colorizer, job, manifest, progress).color()
    finally:
        manifest.write()
    colored, skipped, failed = map(manifest.count, ("colored", "skipped", "failed"))
    summary = f"{colored} coloured, {skipped} done before, {failed} failed -> {job.out}"
    console.print(summary, markup=False, soft_wrap=True)
    return failed


def _manifest_path(job: Job) -> Path:
    if job.share.count == 1:
        return job.out / "manifest.json"
    return job.out / f"manifest-{job.share.index:05}-of-{job.share.count:05}.json"


def _about(colorizer: Colorizer, job: Job) -> dict[str, Any]:
    device = jax.local_devices()[0]
    return {
        **_made_by(colorizer, job),
        "device": f"{colorizer.sampler.devices} x {device.device_kind}",
    }


def _made_by(colorizer: Colorizer, job: Job) -> dict[str, Any]:
    """All that every picture of the job depends on, as it comes back from JSON."""
    made_by = {
        "model": job.model,
        "settings": dataclasses.asdict(job.settings),
        "recipe": colorizer.recipe.to_json(),
        "precision": jnp.dtype(colorizer.precision.dtype).name,
        **({"layers": True} if job.layers else {}),
    }
    return json.loads(json.dumps(made_by))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _completed(made_by: dict[str, Any]) -> dict[str, Any]:
    """What a picture was made by, with the fields of the recipe that are newer than the picture."""
    recipe = made_by.get("recipe")
    if not isinstance(recipe, dict):
        return made_by
    try:
        return made_by | {"recipe": json.loads(json.dumps(Recipe.from_json(recipe).to_json()))}
    except (ValueError, TypeError):  # of a version that knew other fields
        return made_by


class _Todo(NamedTuple):
    name: str
    path: Path
    made_by: dict[str, Any]


class _Run:
    """Three stages at once: cases are checked ahead, coloured, and written behind."""

    def __init__(self, colorizer: Colorizer, job: Job, manifest: Manifest, progress: Progress):
        self.colorizer, self.job, self.manifest, self.progress = colorizer, job, manifest, progress
        self.cases = job.share.of(sorted(job.cases.items()))
        self.made_by = _made_by(colorizer, job)
        self.pages = progress.add_task("pages", total=len(self.cases), speed="")
        self.seen = progress.console.is_terminal
        self.stage = progress.add_task("", total=job.settings.steps, speed="", visible=self.seen)
        self.started = self.told = time.perf_counter()
        self.begun: dict[int, _Todo] = {}
        """Position in the colouriser's stream -> case, until it is finished."""

    def color(self) -> None:
        """Colours all cases."""
        job = self.job
        # Without a report a launch is one piece: nobody waits on an accelerator for its single
        # steps, but on a CPU a step takes seconds, and Ctrl-C is heard between two of them.
        report = self._report if self.seen or jax.default_backend() == "cpu" else None
        results = self.colorizer.stream(
            self._not_done(),
            job.settings,
            batch_size=job.batch_size,
            report=report,
            layers=job.layers,
        )
        behind = 2 * job.batch_size * self.colorizer.sampler.devices
        for _ in threaded_map(self._finish, results, ahead=behind):
            pass

    def _not_done(self) -> Iterator[Path]:
        """Case folders whose picture does not exist yet, or was made otherwise."""
        checked = threaded_map(self._check, self.cases, ahead=CHECK_AHEAD)
        for index, todo in enumerate(todo for todo in checked if todo is not None):
            self.begun[index] = todo
            yield todo.path

    def _check(self, case: tuple[str, Path]) -> _Todo | None:
        """What is to be done about a case; None where that is nothing (any more)."""
        name, path = case
        try:
            made_by = {**self.made_by, "case": hash_case(path)}
        except (ValueError, OSError) as error:
            return self._fail(name, error)
        picture = self._picture_path(name)
        found = read_made_by(picture)
        if found is None and is_foreign(picture):
            problem = f"{picture} exists and is none of ours: move it, or choose another --out"
            return self._fail(name, ValueError(problem))
        found = _completed(found or {})
        if not found.items() >= made_by.items():
            return _Todo(name, path, made_by)
        self._note(name, "skipped", output=f"{name}.png", notes=found.get("notes", []))
        return None

    def _finish(self, result: Colored | Failed) -> None:
        """Writes a picture, or reports its case."""
        todo = self.begun.pop(result.index)
        if isinstance(result, Failed):
            return self._fail(todo.name, result.error)
        notes = list(result.notes)
        made_by = {**todo.made_by, "notes": notes}
        try:
            self._write_layers(todo, result, made_by)
        except ValueError as error:
            return self._fail(todo.name, error)
        write_picture(self._picture_path(todo.name), result.picture, made_by)
        seconds = round(result.seconds, 3)
        self._note(todo.name, "colored", output=f"{todo.name}.png", notes=notes, seconds=seconds)
        return None

    def _write_layers(self, todo: _Todo, result: Colored, made_by: dict[str, Any]) -> None:
        """What the page is laid from, where it is asked for; what an earlier run left goes.

        Raises:
            ValueError: pictures that are not ours stand there.
        """
        if not self.job.layers or result.finished is None:
            return
        folder = self.job.out / f"{todo.name}.layers"
        there = sorted(folder.glob("*.png")) if folder.is_dir() else []
        if foreign := [path.name for path in there if is_foreign(path)]:
            raise ValueError(
                f"{folder} holds pictures that are none of ours ({', '.join(foreign)}): move them, "
                "or choose another --out"
            )
        made = layers(result.finished)
        for name, layer in made.items():
            write_picture(folder / f"{name}.png", layer, made_by)
        for path in there:
            if path.stem not in made:
                path.unlink()

    def _fail(self, name: str, error: Exception) -> None:
        text = f"[red]failed[/red] {escape(name)}: {escape(str(error))}"
        self.progress.console.print(text, soft_wrap=True, highlight=False)
        self._note(name, "failed", error=str(error))

    def _note(self, name: str, status: str, **details: Any) -> None:
        self.manifest.add(name, status, **details)
        speed = self.manifest.count("colored") / (time.perf_counter() - self.started)
        speed = f"{speed:.3g} images/s"
        self.progress.update(self.pages, advance=1, speed=speed)
        done = sum(map(self.manifest.count, ("colored", "skipped", "failed")))
        self._tell(f"{done}/{len(self.cases)} pages, {speed}")

    def _picture_path(self, name: str) -> Path:
        return self.job.out / f"{name}.png"

    def _report(self, doing: str, done: int, of: int) -> None:
        self.progress.update(self.stage, description=doing, completed=done, total=of)
        self._tell(f"{doing}: step {done}/{of}")

    def _tell(self, text: str) -> None:
        """A line now and then where no bar is seen, as in a log file."""
        now = time.perf_counter()
        if not self.seen and now - self.told >= TELL_INTERVAL:
            self.told = now
            self.progress.console.print(text, highlight=False)
