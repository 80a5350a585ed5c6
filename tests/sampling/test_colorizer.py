"""The Python API: batches, programs and devices change nothing about a picture."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from oracles.case_folders import block_mask, noise, save

from magiccolor_jax.checkpoint import SamplingDefaults
from magiccolor_jax.data.cases import read_case
from magiccolor_jax.sampling.colorizer import (
    WAITING,
    Colored,
    Colorizer,
    Failed,
    Settings,
    _check_integer,
    _Ready,
)
from magiccolor_jax.sampling.sampler import Sampler

pytestmark = pytest.mark.usefixtures("compile_quickly")

STEPS = 3
SHAPES = ((100, 100), (61, 83), (90, 140))
"""Pages of different buckets: square, square (small), wide."""


def write_case(folder: Path, shape: tuple[int, int], count: int) -> Path:
    """A page with a line, `count` instances in columns, and smooth references."""
    height, width = shape
    sketch = np.full((*shape, 3), 255, np.uint8)
    sketch[height // 2, 3:-3] = 0
    save(folder / "sketch.png", sketch)
    for number in range(1, count + 1):
        left, right = ((number - 1) * width // count, number * width // count - 2)
        save(folder / f"references/{number}.png", noise((20 + number, 30, 3), number))
        mask = block_mask(shape, 4, left, height - 9, right)
        save(folder / f"sketch_masks/{number}.png", mask)
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Path]:
    """Three page sizes, one to five instances each."""
    root = tmp_path_factory.mktemp("cases")
    kinds = ((SHAPES[0], 1), (SHAPES[1], 3), (SHAPES[2], 5), (SHAPES[0], 4), (SHAPES[2], 2))
    return [write_case(root / f"{i}", shape, count) for i, (shape, count) in enumerate(kinds)]


@pytest.fixture(scope="module")
def colorizer(nano_model) -> Colorizer:
    return Colorizer.from_pretrained(nano_model)


@pytest.fixture
def unquantised(monkeypatch):
    """Pictures stay 0..255 floats."""
    monkeypatch.setattr(Colorizer, "_quantise", lambda self, picture: picture)


def floats(colorizer, cases, *, batch_size=1, report=None, **settings) -> list[np.ndarray]:
    """Pictures in order, 0..255, before quantisation (fixture `unquantised`)."""
    settings = Settings(**({"steps": STEPS} | settings))
    results = colorizer.stream(cases, settings, batch_size=batch_size, report=report)
    return [result.picture for result in sorted(results, key=lambda result: result.index)]


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal to 1e-4 of the [-1, 1] that is quantised."""
    return bool(np.abs(one.astype(np.float64) - other).max() <= 1e-4 * 127.5)


def test_pictures_are_coloured_at_the_sketches_size(colorizer, cases):
    pictures = colorizer(cases[:2], steps=STEPS)
    for picture, case in zip(pictures, cases, strict=False):
        assert picture.shape == read_case(case).sketch.shape
        assert picture.dtype == np.uint8 and picture.std() > 5
    again = colorizer(read_case(cases[1]), steps=STEPS, batch_size=1)
    assert np.abs(again[0].astype(int) - pictures[1]).max() <= 1
    other = colorizer(cases[1], steps=STEPS, batch_size=1, seed=7)
    assert np.abs(other[0].astype(int) - pictures[1]).max() > 20


def test_a_case_is_coloured_alike_alone_and_in_any_batch(colorizer, cases, unquantised):
    """The batches are (0, 1), (2, 4) and 3."""
    together = floats(colorizer, cases, batch_size=2)
    for index in (0, 1, 2):
        (alone,) = floats(colorizer, [cases[index]])
        assert close(together[index], alone)
    assert not close(together[0], together[3])


def test_guidance_one_takes_the_conditional_program(colorizer, cases, unquantised, monkeypatch):
    (conditional,) = floats(colorizer, cases[:1], guidance=1.0)
    monkeypatch.setattr(Sampler, "needs_guidance", lambda self, scale: True)
    (guided,) = floats(colorizer, cases[:1], guidance=1.0)
    (other,) = floats(colorizer, cases[:1], guidance=3.5)
    assert close(conditional, guided) and not close(other, guided)


def test_settings_do_not_compile_again(colorizer, cases):
    """Within a bucket: 3 and 4 instances are padded to 4."""
    three, four = cases[1], cases[3]
    colorizer(three, steps=STEPS, batch_size=1)
    before = colorizer.sampler.compilations()
    assert before > 0
    for change in (
        {"steps": 5},
        {"guidance": 0.0},
        {"guidance": 7.5},
        {"seed": 9},
        {"sampler": "dpmpp_2m"},
    ):
        colorizer(three, batch_size=1, **({"steps": STEPS} | change))
    colorizer(four, steps=STEPS, batch_size=1)
    assert colorizer.sampler.compilations() == before


def test_the_loop_is_one_program_for_any_number_of_references(colorizer, tmp_path):
    """Nothing in it has a size that depends on K, so that a step costs the same at 16 as at 1."""
    programs = colorizer.sampler._denoise[True]
    colorizer(write_case(tmp_path / "one", SHAPES[0], 1), steps=STEPS, batch_size=1)
    before = programs._cache_size()
    colorizer(write_case(tmp_path / "sixteen", SHAPES[0], 16), steps=STEPS, batch_size=1)
    assert programs._cache_size() == before


def test_listening_changes_nothing(colorizer, cases, unquantised):
    heard, events = [], []
    report = lambda *what: heard.append(what)  # noqa: E731
    (before,) = floats(colorizer, cases[:1])
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    programs = colorizer.sampler.compilations()
    assert close(floats(colorizer, cases[:1], report=report)[0], before)
    assert colorizer.sampler.compilations() == programs
    assert not any("backend_compile" in event for event in events)
    done = [done for stage, done, _ in heard if stage == "denoising"]
    assert done[-STEPS:] == list(range(1, STEPS + 1))
    assert "decoding" in heard[-1][0]


def test_bad_cases_do_not_stop_the_stream(colorizer, cases, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "none", cases[0], tmp_path / "empty", cases[1]]
    results = list(colorizer.stream(given, Settings(steps=1), batch_size=2))
    by_index = {result.index: result for result in results}
    assert sorted(by_index) == [0, 1, 2, 3]
    assert isinstance(by_index[0], Failed) and isinstance(by_index[2], Failed)
    assert isinstance(by_index[1], Colored) and by_index[3].seconds > 0
    with pytest.raises(ValueError, match="empty: a case has a sketch"):
        colorizer([tmp_path / "empty"], steps=1)


def test_cases_are_read_lazily_and_wait_in_bounded_number(colorizer, cases, monkeypatch):
    """Every page of its own size: no batch ever fills up."""
    taken, launches = itertools.count(), []
    one = colorizer._prepare((0, cases[0]), seed=0).prepared

    def prepare(self, numbered, *, seed):
        index, _ = numbered
        return _Ready(index, one._replace(fit=one.fit._replace(bucket=(64, 64 * (1 + index)))))

    def color(self, group, settings, report):
        launches.append(len(group))
        return [Colored(r.index, np.zeros((1, 1, 3), np.uint8), (), 0.0) for r in group]

    monkeypatch.setattr(Colorizer, "_prepare", prepare)
    monkeypatch.setattr(Colorizer, "_color", color)
    count = 200
    stream = colorizer.stream((next(taken) for _ in range(count)), Settings(), batch_size=2)
    next(stream)
    assert next(taken) <= 2 * (WAITING + 4)
    assert len(list(stream)) >= count - 2
    assert launches.count(1) == len(launches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps must be in 1\.\.1000, got 0"),
        ({"steps": 1001}, "got 1001"),
        ({"guidance": -0.1}, "at least 0, got -0.1"),
        ({"guidance": float("nan")}, "got nan"),
        ({"guidance": float("inf")}, "got inf"),
        ({"seed": -1}, "seed must be"),
        ({"sampler": "euler"}, r"one of \['ddim', 'dpmpp_2m'\], got 'euler'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_the_model_says_how_it_is_sampled(colorizer, monkeypatch):
    suits = SamplingDefaults(steps=7, guidance=2.0, sampler="dpmpp_2m")
    monkeypatch.setattr(colorizer, "config", replace(colorizer.config, sampling=suits))
    assert colorizer.settings(seed=5, steps=None) == Settings(
        seed=5, steps=7, guidance=2.0, sampler="dpmpp_2m"
    )
    assert colorizer.settings(steps=3, guidance=1.0).steps == 3


@pytest.mark.parametrize("value", [1.5, True, "4", None])
def test_what_only_looks_like_a_whole_number(value):
    # Asked of the check itself: in the tests beartype refuses them at __init__ already.
    with pytest.raises(ValueError, match="steps must be a whole number, got"):
        _check_integer("steps", value)
    _check_integer("steps", np.int64(4))


def test_the_stream_checks_its_arguments_at_once(colorizer):
    """Before anything is iterated; 1000 leading steps with offset 1 leave the schedule."""
    with pytest.raises(ValueError, match="take fewer steps"):
        colorizer.stream([], Settings(steps=1000))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        colorizer.stream([], Settings(), batch_size=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "best"}, r"one of \['paper', 'release'\], got 'best'"),
        ({"recipe": {"contxt": "clip"}}, r"unknown fields \['contxt'\]"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_bad_options_of_a_model(nano_model, options, message):
    with pytest.raises(ValueError, match=message):
        Colorizer.from_pretrained(nano_model, **options)


@pytest.mark.slow
def test_bfloat16_and_the_warning_before_a_first_run(nano_model, colorizer, cases):
    half = Colorizer.from_pretrained(nano_model, precision="bfloat16")
    heard: list[list[str]] = [[], []]
    for stages in heard:
        report = lambda stage, *_, to=stages: to.append(stage)  # noqa: E731
        (picture,) = half(cases[0], steps=STEPS, batch_size=1, report=report)
    assert "compiling: denoising" in heard[0] and "compiling: decoding" in heard[0]
    assert not any("compiling" in stage for stage in heard[1])
    (expected,) = colorizer(cases[0], steps=STEPS, batch_size=1)
    assert picture.dtype == np.uint8
    assert 0 < np.abs(picture.astype(float) - expected).mean() < 8


EIGHT = """
import sys, numpy as np, jax
from magiccolor_jax.sampling.colorizer import Colorizer
assert jax.local_device_count() == 8
Colorizer._quantise = lambda self, picture: picture
model, out, *cases = sys.argv[1:]
np.savez(out, *Colorizer.from_pretrained(model)(cases, steps=3, batch_size=1))
"""


@pytest.mark.slow
def test_eight_devices_give_the_same_pictures(nano_model, colorizer, cases, tmp_path, unquantised):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    out = tmp_path / "eight.npz"
    arguments = [nano_model, out, cases[0], cases[3], cases[1]]
    subprocess.run([sys.executable, "-c", EIGHT, *map(str, arguments)], env=environment, check=True)
    expected = floats(colorizer, [cases[0], cases[3], cases[1]])
    with np.load(out) as found:
        for name, picture in zip(found.files, expected, strict=True):
            assert close(found[name], picture)
