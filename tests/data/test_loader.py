"""Batches read ahead, on threads and processes, from any step on."""

import logging
from pathlib import Path

import numpy as np
import pytest
from oracles.runs import write_pages
from oracles.training import SMALL_SIZES

from magiccolor_jax.data.loader import ATTEMPTS, DataConfig, Sampling, batches
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.recipe import Recipe

PAGES, BATCH = 5, 4


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("pages"), PAGES)


def sampling(pages: Path, seed: int = 0) -> Sampling:
    source = open_source(f"cases:{pages}")
    maker = Maker(Play(), Recipe.paper(), SMALL_SIZES, instances=4)
    return Sampling.of(source, maker, BATCH, seed)


def read(given, config=None, rows=range(BATCH), steps=range(6)):
    return [batch.target for batch in batches(given, config or DataConfig(), rows, steps)]


@pytest.fixture(scope="module")
def expected(pages):
    return read(sampling(pages), DataConfig(threads=1, ahead=1))


def test_batches_are_whole_and_differ(expected):
    assert len(expected) == 6 and {x.shape for x in expected} == {(BATCH, 64, 64, 3)}
    assert len({x.tobytes() for x in expected}) == 6


def test_threads_change_nothing(pages, expected):
    np.testing.assert_array_equal(read(sampling(pages), DataConfig(threads=7, ahead=3)), expected)


@pytest.mark.slow
def test_processes_change_nothing(pages, expected):
    """Slow: each worker imports the library anew."""
    found = read(sampling(pages), DataConfig(workers=2))
    np.testing.assert_array_equal(found, expected)


def test_reading_begins_anywhere(pages, expected):
    np.testing.assert_array_equal(read(sampling(pages), steps=range(4, 6)), expected[4:])


@pytest.mark.parametrize("width", [1, 2])
def test_processes_together_read_the_same(pages, expected, width):
    shares = [
        read(sampling(pages), rows=range(first, first + width)) for first in range(0, BATCH, width)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), expected)


def test_another_seed_reads_otherwise(pages, expected):
    assert not np.array_equal(read(sampling(pages, seed=1)), expected)


def test_a_bad_scene_is_replaced_and_named(tmp_path, caplog):
    pages = write_pages(tmp_path, PAGES)
    given = sampling(pages)
    (pages / "page3" / "target.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        found = read(given)
    assert len(found) == 6
    assert "page3" in caplog.text and "another scene takes its place" in caplog.text
    np.testing.assert_array_equal(found, read(given))


def test_nothing_but_bad_scenes_stop_it(tmp_path, caplog):
    pages = write_pages(tmp_path, ATTEMPTS + 1)
    given = sampling(pages)
    for page in range(ATTEMPTS + 1):
        (pages / f"page{page}" / "target.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING), pytest.raises(CaseError, match="target.png"):
        read(given, DataConfig(threads=1, ahead=1), rows=range(1), steps=range(1))
    assert caplog.text.count("takes its place") == ATTEMPTS - 1


def test_a_bad_scene_alone_with_its_shape_is_replaced_too(tmp_path, caplog):
    pages = write_pages(tmp_path, 2)
    write_pages(tmp_path / "more", 1, instances=3)
    (tmp_path / "more" / "page0").rename(pages / "page9")
    given = sampling(pages)
    (pages / "page9" / "target.png").write_bytes(b"no picture")
    config = DataConfig(threads=1, ahead=1)
    with caplog.at_level(logging.WARNING):
        found = [b.counts.shape for b in batches(given, config, range(BATCH), range(12))]
    assert {shape[1] for shape in found} == {2, 4} and caplog.text.count("takes its place") == 1


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"ahead": 0}, {"workers": -1}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="DataConfig: expected at least"):
        DataConfig(**wrong)
