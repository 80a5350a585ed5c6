"""Measures every page of every method, goes on where an earlier run ended, writes the report."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from magiccolor_jax.data.cases import find_case_files, read_case
from magiccolor_jax.evaluation.frechet import Statistics, load_normal
from magiccolor_jax.evaluation.judges import Judges, load_judges
from magiccolor_jax.evaluation.measuring import Devices, Page, measure_on_host
from magiccolor_jax.evaluation.methods import TRUTH, Method
from magiccolor_jax.evaluation.page import write_page
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.report import Result, summarise, write_csv, write_json
from magiccolor_jax.evaluation.rows import Entry, Rows
from magiccolor_jax.files import sha256_of
from magiccolor_jax.parallel.mesh import data_mesh, replicated
from magiccolor_jax.parallel.multihost import Share
from magiccolor_jax.sampling.outputs import hash_case, hash_model
from magiccolor_jax.sampling.pipeline import threaded_map

VERSION = 1
"""Of the numbers: raised when one of them is computed otherwise, so that old rows do not count."""


class Evaluation(NamedTuple):
    """What a run is asked to do."""

    protocol: Protocol
    cases: Mapping[str, Path]
    """Name -> case folder."""
    methods: Sequence[Method]
    networks: Sequence[Path]
    """Folders that the judges are looked for in."""
    out: Path
    share: Share
    batch_size: int
    """Pages per device."""
    fid_truth: Path | None = None
    """Statistics that methods are compared with, of `frechet.Statistics` or of pytorch-fid; None:
    those of the targets."""


def choose_cases(cases: Mapping[str, Path], protocol: Protocol) -> dict[str, Path]:
    """The cases that a protocol looks at: all, or as many as it says, drawn by its seed."""
    names = sorted(cases)
    if protocol.cases is not None and protocol.cases < len(names):
        random = np.random.default_rng(protocol.seed)
        names = sorted(random.choice(names, protocol.cases, replace=False).tolist())
    return {name: cases[name] for name in names}


def run(job: Evaluation, console: Console) -> Result | None:
    """Measures what is not measured yet and writes the report.

    Returns:
        The report; None where other processes have not measured their part yet.

    Raises:
        FileNotFoundError: networks are missing.
        ValueError: pages cannot be measured; one report of all of them, after all others are.
        OSError: the disk is full; what was measured stays, and a re-run goes on from there.
    """
    truth = None if job.fid_truth is None else load_normal(job.fid_truth)
    if job.protocol.fid and truth is None and TRUTH not in (m.name for m in job.methods):
        raise ValueError(
            f"FID compares with the truth: expected target.* in every case, or its statistics "
            f"(--fid-truth FILE); the protocol {job.protocol.name!r} has it, and cases lack targets"
        )
    job.out.mkdir(parents=True, exist_ok=True)
    place = replicated(data_mesh())
    judges = load_judges(job.networks, job.protocol.judges, sharding=place)
    work = _Work(job, judges, Rows(job.out, job.share))
    failures = work.measure(console)
    if failures:
        raise ValueError(
            f"{len(failures)} pages could not be measured (the others are, and will not be "
            "measured again):\n" + "\n".join(failures)
        )
    found = {method.name: [work.find(method, name) for name in job.cases] for method in job.methods}
    missing = sum(entry is None for entries in found.values() for entry in entries)
    if missing:
        console.print(
            f"{missing} pages are other processes'; when they are done, run the same command "
            "without --process to write the report"
        )
        return None
    entries = {name: [e for e in rows if e is not None] for name, rows in found.items()}
    with console.status("averaging"):
        statistics = _statistics(job, work.rows, entries)
        about = _about(job)
        result = summarise(job.protocol, about, list(job.cases), entries, statistics, truth)
        write_json(job.out / "report.json", result)
        write_csv(job.out, result)
        write_page(job.out / "index.html", result, job.cases, job.methods)
    return result


def _statistics(
    job: Evaluation, rows: Rows, entries: Mapping[str, list[Entry]]
) -> dict[str, Statistics]:
    """Of each method's features, saved as OUT/fid/METHOD.npz; nothing where there is no FID."""
    if not job.protocol.fid:
        return {}
    statistics = {method: rows.statistics(found) for method, found in entries.items()}
    for method, found in statistics.items():
        path = job.out / "fid" / f"{method}.npz"
        path.parent.mkdir(exist_ok=True)
        found.save(path)
    return statistics


def _about(job: Evaluation) -> dict[str, Any]:
    device = jax.local_devices()[0]
    return {
        "device": f"{jax.local_device_count()} x {device.device_kind}",
        "networks": [str(folder) for folder in job.networks],
        "version": VERSION,
    }


class _Todo(NamedTuple):
    method: Method
    case: str
    key: str


class _Work:
    def __init__(self, job: Evaluation, judges: Judges, rows: Rows):
        self.job, self.rows = job, rows
        self.devices = Devices(job.protocol, judges)
        self.common = _digest(
            VERSION,
            json.dumps(asdict(job.protocol), sort_keys=True),
            *(hash_model(folder) for folder in judges.folders),
        )
        self.case_digest = cache(self._case_digest)

    def measure(self, console: Console) -> list[str]:
        """Measures this process' part; what went wrong, page by page."""
        mine = self.job.share.of(list(self.job.cases))
        todo = [
            _Todo(method, name, self.key(method, name))
            for method in self.job.methods
            for name in mine
            if self.find(method, name) is None
        ]
        failures: list[str] = []
        with _progress(console) as progress:
            task = progress.add_task("pages", total=len(self.job.methods) * len(mine))
            progress.advance(task, len(self.job.methods) * len(mine) - len(todo))
            prepared = threaded_map(self._prepare, todo, ahead=4 * self.job.batch_size)
            for batch in _batches(prepared, self.job.batch_size * jax.local_device_count()):
                bad = [page for _, page in batch if isinstance(page, str)]
                good = [(each, page) for each, page in batch if isinstance(page, Page)]
                for text in bad:
                    progress.console.print(f"[red]failed[/red] {escape(text)}", soft_wrap=True)
                failures += bad
                if good:
                    self._add(good)
                progress.advance(task, len(batch))
        return failures

    def find(self, method: Method, name: str):
        """The row of a page, if it is measured."""
        return self.rows.find(method.name, name, self.key(method, name))

    def key(self, method: Method, name: str) -> str:
        """Identifies everything that a row depends on."""
        pictures = [each[name] for each in (method.pictures, method.swapped) if name in each]
        return _digest(
            self.common,
            self.case_digest(name),
            method.name if method.paint else "",
            *(sha256_of(path) for path in pictures),
        )

    def _case_digest(self, name: str) -> str:
        path = self.job.cases[name]
        target = find_case_files(path).target
        return _digest(hash_case(path), "" if target is None else sha256_of(target))

    def _prepare(self, todo: _Todo) -> tuple[_Todo, Page | str]:
        """A page, or what is wrong with it."""
        try:
            case = read_case(self.job.cases[todo.case], report_overlaps=False)
            made = todo.method.page(todo.case, case)
            swapped = None
            if "swapped" in self.job.protocol.metrics:
                swapped = todo.method.swapped_page(todo.case, case)
            return todo, measure_on_host(case, made, swapped, self.job.protocol)
        except ValueError as error:
            return todo, f"{todo.method.name}, {todo.case}: {error}"

    def _add(self, pages: Sequence[tuple[_Todo, Page]]) -> None:
        rows, features = self.devices.measure([page for _, page in pages])
        named = [(todo.method.name, todo.case, todo.key) for todo, _ in pages]
        self.rows.add(named, rows, features)


def _batches(
    pages: Iterable[tuple[_Todo, Page | str]], size: int
) -> Iterator[list[tuple[_Todo, Page | str]]]:
    """Neighbours of one shape, so that a program serves them; at most `size`."""

    def shape(each: tuple[_Todo, Page | str]) -> Any:
        page = each[1]
        return page if isinstance(page, str) else page.shape

    for _, alike in itertools.groupby(pages, shape):
        while batch := list(itertools.islice(alike, size)):
            yield batch


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
