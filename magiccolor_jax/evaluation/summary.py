"""Rows -> means with their intervals, over all cases and over groups of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from magiccolor_jax.evaluation.difficulty import Difficulty
from magiccolor_jax.evaluation.metrics import INSTANCE
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.rows import Row

COVERED = (2.5, 97.5)
"""Percentiles between which 95 % of the resampled means lie."""


class Mean(NamedTuple):
    """Of the cases that have the number."""

    value: float
    low: float
    high: float
    """Ends of the bootstrap's 95 % interval (Efron 1979)."""
    count: int


def value_of(row: Row, metric: str) -> float:
    """A case's number; of instances their mean; nan where it has none."""
    if metric not in INSTANCE:
        found = row.get(metric)
        return math.nan if found is None else float(found)
    values = [instance[metric] for instance in row["instances"] if metric in instance]
    values = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(values)) if values else math.nan


def table_of(rows: Sequence[Row], metrics: Sequence[str]) -> Float[np.ndarray, "N M"]:
    """The numbers of cases."""
    return np.array([[value_of(row, m) for m in metrics] for row in rows]).reshape(
        len(rows), len(metrics)
    )


def means_of(values: Float[np.ndarray, "N M"], protocol: Protocol) -> list[Mean | None]:
    """The mean of each column and its interval; None where no case has a number.

    The cases are resampled alike for all methods, so that these can be compared.
    """
    random, count = np.random.default_rng(protocol.seed), len(values)
    there = ~np.isnan(values)
    filled = np.where(there, values, 0)
    both = np.concatenate([filled, there], axis=1)
    sums = np.stack([_drawn(count, random) @ both for _ in range(protocol.resamples)])
    with np.errstate(invalid="ignore"):
        sampled = np.divide(*np.split(sums, 2, axis=1))  # nan: none of the drawn has the number
    found: list[Mean | None] = []
    for column, total in enumerate(filled.sum(axis=0)):
        known = int(there[:, column].sum())
        if not known:
            found.append(None)
            continue
        low, high = np.nanpercentile(sampled[:, column], COVERED)
        found.append(Mean(float(total / known), float(low), float(high), known))
    return found


def _drawn(count: int, random: np.random.Generator) -> Int[np.ndarray, "N"]:
    """How often each case is drawn when as many are drawn with replacement."""
    return np.bincount(random.integers(count, size=count), minlength=count)


def groups_of(difficulties: Sequence[Difficulty]) -> dict[str, list[int]]:
    """Name of a group -> its cases: by the number of instances, and thirds of the rest.

    Args:
        difficulties: of every case.
    """
    groups: dict[str, list[int]] = {}
    counts = [each.instances for each in difficulties]
    for count in sorted(set(counts)):
        groups[f"K = {count}"] = [i for i, c in enumerate(counts) if c == count]
    for name in ("overlap", "occlusion"):
        groups |= _thirds(name, [getattr(each, name) for each in difficulties])
    return groups


def _thirds(name: str, values: Sequence[float]) -> dict[str, list[int]]:
    """Lowest, middle and highest third; equal values share a group, so one may be empty."""
    if np.isnan(values).all():
        return {}
    low, high = np.nanpercentile(values, (100 / 3, 200 / 3))
    parts: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        if np.isnan(value):
            continue
        third = "low" if value <= low else "middle" if value <= high else "high"
        parts.setdefault(third, []).append(index)
    thirds = [third for third in ("low", "middle", "high") if third in parts]
    return {f"{name}, {third}": parts[third] for third in thirds}
