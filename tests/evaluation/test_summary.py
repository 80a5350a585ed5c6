"""Means, intervals and groups."""

import math

import numpy as np
import pytest
from scipy import stats

from magiccolor_jax.evaluation.difficulty import Difficulty
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.summary import groups_of, means_of, table_of, value_of

PROTOCOL = Protocol(name="test", metrics=("psnr", "own"), resamples=4000)


def test_of_instances_the_mean_counts():
    row = {"psnr": 20.0, "instances": [{"own": 1.0}, {"own": 4.0}, {"own": math.nan}, {}]}
    assert value_of(row, "psnr") == 20 and value_of(row, "own") == 2.5
    assert math.isnan(value_of(row, "ssim")) and math.isnan(value_of(row, "region_psnr"))
    np.testing.assert_array_equal(table_of([row], ("psnr", "own")), [[20, 2.5]])


def test_intervals_are_those_of_scipys_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, 3.0, (60, 1))
    (found,) = means_of(values, PROTOCOL)
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert found.high == pytest.approx(theirs.high, abs=0.04 * spread)
    assert found.count == 60


def test_the_same_cases_are_drawn_for_every_method():
    values = np.random.default_rng(0).normal(size=(30, 1))
    one, other = means_of(values, PROTOCOL)[0], means_of(values + 5, PROTOCOL)[0]
    np.testing.assert_allclose(np.subtract(other[:3], one[:3]), 5)


def test_what_has_no_number_does_not_count():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    first, second = means_of(values, PROTOCOL)
    assert first.value == 2 and first.count == 2 and 1 <= first.low <= first.high <= 3
    assert second is None


def test_groups():
    pages = [
        Difficulty(count, overlap, 0.0)
        for count, overlap in [(1, 0.0), (3, 0.2), (1, 0.4), (2, 0.6), (3, 0.8), (3, 1.0)]
    ]
    groups = groups_of(pages)
    assert groups["K = 1"] == [0, 2] and groups["K = 3"] == [1, 4, 5]
    assert [groups[f"overlap, {third}"] for third in ("low", "middle", "high")] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    assert groups["occlusion, low"] == list(range(6)) and "occlusion, high" not in groups
