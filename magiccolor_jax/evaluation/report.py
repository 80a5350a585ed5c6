"""The report of an evaluation: one dictionary, as JSON, as CSV, and (page.py) as a page."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from magiccolor_jax.evaluation.difficulty import Difficulty
from magiccolor_jax.evaluation.frechet import Normal, Statistics, frechet_distance
from magiccolor_jax.evaluation.methods import TRUTH
from magiccolor_jax.evaluation.metrics import INSTANCE
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.rows import Entry
from magiccolor_jax.evaluation.summary import Mean, groups_of, means_of, table_of, value_of
from magiccolor_jax.files import atomic_file

FORMAT_VERSION = 1


class Result(NamedTuple):
    """Everything that was measured."""

    protocol: Protocol
    about: dict[str, Any]
    """Device, code version, where the cases and the networks came from."""
    cases: list[str]
    rows: dict[str, list[Entry]]
    """Method -> its rows, in the order of `cases`."""
    means: dict[str, list[Mean | None]]
    """Method -> a mean per metric of the protocol."""
    groups: dict[str, tuple[int, dict[str, list[Mean | None]]]]
    """Group of cases -> their number, and method -> means."""
    fid: dict[str, float]
    """Method -> Fréchet distance, where the protocol has it."""


def summarise(
    protocol: Protocol,
    about: dict[str, Any],
    cases: Sequence[str],
    entries: Mapping[str, list[Entry]],
    statistics: Mapping[str, Statistics],
    fid_truth: Normal | None,
) -> Result:
    """Averages what was measured.

    Args:
        entries: method -> its rows, in the order of `cases`.
        statistics: method -> of Inception's features; empty where the protocol has no FID.
        fid_truth: what methods are compared with; None: with the truth's own statistics.
    """
    tables = {
        method: table_of([entry.row for entry in found], protocol.metrics)
        for method, found in entries.items()
    }
    first = next(iter(entries.values()))
    groups = {
        name: (
            len(chosen),
            {method: means_of(table[chosen], protocol) for method, table in tables.items()},
        )
        for name, chosen in groups_of(
            [Difficulty(**entry.row["difficulty"]) for entry in first]
        ).items()
    }
    normals = {method: found.normal() for method, found in statistics.items()}
    truth = fid_truth or normals.get(TRUTH)
    fid = {}
    if truth is not None:
        rivals = {method: n for method, n in normals.items() if n is not truth}
        fid = {method: frechet_distance(normal, truth) for method, normal in rivals.items()}
    return Result(
        protocol,
        about,
        list(cases),
        dict(entries),
        {method: means_of(table, protocol) for method, table in tables.items()},
        groups,
        fid,
    )


def write_json(path: Path, result: Result) -> None:
    """Writes means, groups and every row; what has no number is null.

    Raises:
        OSError: the disk is full.
    """
    metrics = result.protocol.metrics
    content = {
        "format_version": FORMAT_VERSION,
        "protocol": asdict(result.protocol),
        **result.about,
        "methods": {
            method: {"cases": len(result.cases), **_means(metrics, means)}
            | ({"fid": result.fid[method]} if method in result.fid else {})
            for method, means in result.means.items()
        },
        "groups": {
            name: {"cases": count, "methods": {m: _means(metrics, x) for m, x in methods.items()}}
            for name, (count, methods) in result.groups.items()
        },
        "rows": {
            method: {entry.case: entry.row for entry in entries}
            for method, entries in result.rows.items()
        },
    }
    with atomic_file(path) as temporary:
        text = json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False)
        # A name that is no UTF-8 has lone surrogates.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _means(metrics: Sequence[str], means: Sequence[Mean | None]) -> dict[str, Any]:
    return {
        name: None if mean is None else mean._asdict()
        for name, mean in zip(metrics, means, strict=True)
    }


def _finite(value: Any) -> Any:
    """JSON knows neither nan nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def write_csv(folder: Path, result: Result) -> None:
    """Writes cases.csv, a line per method and case, and instances.csv.

    Raises:
        OSError: the disk is full.
    """
    metrics = result.protocol.metrics
    difficulty = ("instances", "overlap", "occlusion")
    cases: list[list[Any]] = [["method", "case", *difficulty, *metrics]]
    inside = [name for name in metrics if name in INSTANCE]
    instances: list[list[Any]] = [["method", "case", "instance", *inside]]
    for method, entries in result.rows.items():
        for entry in entries:
            row = entry.row
            numbers = [value_of(row, name) for name in metrics]
            hard = [row["difficulty"][name] for name in difficulty]
            cases.append([method, entry.case, *hard, *map(_cell, numbers)])
            for instance in row["instances"]:
                found = [_cell(instance.get(name, math.nan)) for name in inside]
                instances.append([method, entry.case, instance["id"], *found])
    for name, lines in (("cases.csv", cases), ("instances.csv", instances)):
        with (
            atomic_file(folder / name) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            csv.writer(file).writerows(lines)


def _cell(value: float) -> float | str:
    """A number, or nothing."""
    return "" if value is None or math.isnan(value) else round(value, 6)
