"""Measures every page of every method, goes on where an earlier run ended, writes the report."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from magiccolor_jax.data.cases import find_case_files, read_case
from magiccolor_jax.evaluation.frechet import Normal, load_normal
from magiccolor_jax.evaluation.judges import Judges, find_judges, load_judges
from magiccolor_jax.evaluation.known import Known, compared, sees_instances
from magiccolor_jax.evaluation.measuring import Devices, Page, measure_on_host
from magiccolor_jax.evaluation.methods import TRUTH, Method, case_hashes
from magiccolor_jax.evaluation.page import write_page
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.report import Result, summarise, write_csv, write_json
from magiccolor_jax.evaluation.rows import Entry, Rows
from magiccolor_jax.files import code_version, locked, sha256_of
from magiccolor_jax.parallel.mesh import data_mesh, replicated
from magiccolor_jax.parallel.multihost import Share
from magiccolor_jax.sampling.outputs import hash_model
from magiccolor_jax.sampling.pipeline import WORKERS, threaded_map

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


def check(job: Evaluation) -> Normal | None:
    """What can be known before any work is done: networks, targets, masks, FID's other side.

    Returns:
        The statistics that are given for FID.

    Raises:
        FileNotFoundError: networks are missing.
        ValueError: cases lack what the protocol takes, all of them listed; or statistics.
    """
    find_judges(job.networks, job.protocol.judges)
    lacking = [
        f"  {name}: {', '.join(parts)}"
        for name, path in job.cases.items()
        if (parts := _lacking(path, job.protocol))
    ]
    if lacking:
        raise ValueError(
            f"the protocol {job.protocol.name!r} takes more than these cases have; add it, or "
            "choose a protocol without these numbers:\n" + "\n".join(lacking)
        )
    return _fid_truth(job)


def _lacking(path: Path, protocol: Protocol) -> list[str]:
    """What a case has not, by its names; a broken one is told of when it is read."""
    try:
        files = find_case_files(path)
    except ValueError:
        return []
    parts = ["no target.*"] if compared(protocol) and files.target is None else []
    masks = sees_instances(protocol) and not files.sketch_masks
    return parts + (["no sketch_masks/"] if masks else [])


def run(job: Evaluation, console: Console) -> Result | None:
    """Measures what is not measured yet and writes the report.

    Returns:
        The report; None for one of several processes, which only measures its part.

    Raises:
        FileNotFoundError: networks are missing.
        ValueError: pages cannot be measured, one report of all of them after all others are; or
            another run is at the same part.
        OSError: the disk is full; what was measured stays, and a re-run goes on from there.
    """
    truth = check(job)
    job.out.mkdir(parents=True, exist_ok=True)
    part = f"{job.share.index}-of-{job.share.count}"
    with locked(job.out / f".lock-{part}", "evaluation of a part"):
        judges = load_judges(job.networks, job.protocol.judges, sharding=replicated(data_mesh()))
        work = _Work(job, judges, Rows(job.out, job.share))
        if failures := work.measure(console):
            old = (job.out / "report.json").exists()
            raise ValueError(
                f"{len(failures)} pages could not be measured; all others are, and will not be "
                f"measured again{' (the report in the folder is an earlier one)' * old}:\n"
                + "\n".join(failures)
            )
        if job.share.count > 1:
            console.print("measured; when all processes have, the same command without --process")
            console.print("writes the report")
            return None
        with console.status("averaging"):
            return _report(job, work, truth)


def _fid_truth(job: Evaluation) -> Normal | None:
    """The statistics that are given.

    Raises:
        ValueError: they are damaged, or FID has nothing to compare with.
    """
    if job.fid_truth is not None:
        return load_normal(job.fid_truth)
    if job.protocol.fid and TRUTH not in (method.name for method in job.methods):
        raise ValueError(
            f"FID compares with the truth, and the protocol {job.protocol.name!r} has it: expected "
            "target.* in every case, or its statistics (--fid-truth FILE)"
        )
    return None


def _report(job: Evaluation, work: "_Work", truth: Normal | None) -> Result:
    """Averages and writes everything."""
    entries = {
        method.name: [work.entry(method, name) for name in job.cases] for method in job.methods
    }
    statistics = {}
    if job.protocol.fid:
        statistics = {method: work.rows.statistics(found) for method, found in entries.items()}
    for method, found in statistics.items():
        found.save(job.out / "fid" / f"{method}.npz")
    result = summarise(job.protocol, _about(job), list(job.cases), entries, statistics, truth)
    write_json(job.out / "report.json", result)
    write_csv(job.out, result)
    write_page(job.out / "index.html", result, job.cases, job.methods)
    return result


def _about(job: Evaluation) -> dict[str, Any]:
    device = jax.local_devices()[0]
    return {
        "code": code_version(),
        "device": f"{jax.local_device_count()} x {device.device_kind}",
        "cases_of": {name: str(path) for name, path in job.cases.items()},
        "networks": [str(folder) for folder in job.networks],
        "fid_truth": TRUTH if job.fid_truth is None else str(job.fid_truth),
    }


class _Todo(NamedTuple):
    method: str
    case: str
    key: str


class _Work:
    """Cases are read and measured on threads, batches on the devices, rows written behind."""

    def __init__(self, job: Evaluation, judges: Judges, rows: Rows):
        self.job, self.rows = job, rows
        self.devices = Devices(job.protocol, judges)
        self.size = job.batch_size * jax.local_device_count()
        self.keys: dict[tuple[str, str], str] = {}
        """Method and case -> key, of everything that was looked at."""
        protocol = job.protocol
        self.common = _digest(
            VERSION,
            *(protocol.size, protocol.fid, *sorted(protocol.metrics)),
            *map(hash_model, dict.fromkeys(judges.folders)),
        )

    def entry(self, method: Method, name: str) -> Entry:
        """The row of a page that was measured."""
        found = self.rows.find(method.name, name, self.keys[method.name, name])
        assert found is not None, "or a failure was reported"
        return found

    def measure(self, console: Console) -> list[str]:
        """Measures this process' part; what went wrong, page by page."""
        mine = self.job.share.of(list(self.job.cases))
        failures: list[str] = []
        waiting: defaultdict[tuple[int, ...], list[tuple[_Todo, Page]]] = defaultdict(list)
        with _progress(console) as progress:
            task = progress.add_task("pages", total=len(mine) * len(self.job.methods))
            for page in self._pages(mine):
                if isinstance(page, str):
                    failures.append(page)
                    progress.console.print(f"[red]failed[/red] {escape(page)}", soft_wrap=True)
                elif page:
                    alike = waiting[page[1].shape]
                    alike.append(page)
                    if len(alike) == self.size:
                        self._add(waiting.pop(page[1].shape))
                progress.advance(task)
            for alike in waiting.values():
                self._add(alike)
        return failures

    def _pages(self, names: Sequence[str]) -> Iterator[tuple[_Todo, Page] | str | None]:
        """For each page of each case: itself, what is wrong with it, or None if it is measured."""
        for pages in threaded_map(self._prepare, names, ahead=WORKERS):
            yield from pages

    def _prepare(self, name: str) -> list[tuple[_Todo, Page] | str | None]:
        """The pages of one case."""
        methods = self.job.methods
        try:
            case_key = _digest(self.common, *case_hashes(self.job.cases[name]))
        except (ValueError, OSError) as error:
            return [f"{name}: {error}", *[None] * (len(methods) - 1)]
        known: Known | None = None
        found: list[tuple[_Todo, Page] | str | None] = []
        for method in methods:
            try:
                key = self.keys[method.name, name] = method_key(case_key, method, name)
                if self.rows.find(method.name, name, key) is not None:
                    found.append(None)
                    continue
                known = known or self._read(name)
                page = self._measured(known, method, name)
                found.append((_Todo(method.name, name, key), page))
            except (ValueError, OSError) as error:
                found.append(f"{method.name}, {name}: {error}")
        return found

    def _read(self, name: str) -> Known:
        known = Known(read_case(self.job.cases[name], report_overlaps=False), self.job.protocol)
        known.check()
        return known

    def _measured(self, known: Known, method: Method, name: str) -> Page:
        swapped = None
        if "swapped" in self.job.protocol.metrics:
            swapped = method.swapped_page(name, known.case)
        return measure_on_host(known, method.page(name, known.case), swapped)

    def _add(self, pages: Sequence[tuple[_Todo, Page]]) -> None:
        rows, features = self.devices.measure([page for _, page in pages])
        self.rows.add([todo for todo, _ in pages], rows, features)


def method_key(case_key: str, method: Method, name: str) -> str:
    """Identifies everything that a row depends on.

    Args:
        case_key: of the case and what it is measured with.

    Raises:
        OSError: a picture cannot be read.
    """
    pictures = [each[name] for each in (method.pictures, method.swapped) if name in each]
    return _digest(case_key, method.name if method.paint else "", *map(sha256_of, pictures))


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
