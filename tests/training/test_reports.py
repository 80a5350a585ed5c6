"""What is told, where, and what is taken back after a kill."""

import io
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from magiccolor_jax.training.reports import Averages, Clock, DivergedError, Reporter, memory_gb


def report(folder, start=0, steps=9):
    return Reporter(folder, Console(file=io.StringIO(), width=200), start, steps)


def told(reporter):
    return reporter.console.file.getvalue()


def test_numbers_go_to_all_three_places(tmp_path):
    with report(tmp_path) as reporter:
        reporter.scalars(3, {"loss": 0.25, "loss/denoise": 0.125})
        reporter.picture(3, "preview", np.zeros((4, 6, 3), np.uint8))
        reporter.advance(3)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 3, "loss": 0.25, "loss/denoise": 0.125}
    assert "step 3  loss 0.25  loss/denoise 0.125" in told(reporter)
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").glob("events*"))
    assert b"loss/denoise" in events and b"preview" in events


def test_lines_after_the_last_checkpoint_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 6)]
    path.write_text("".join(lines) + '{"step": 6, "lo')
    with report(tmp_path, start=4) as reporter:
        reporter.scalars(5, {"loss": 2.0})
    assert [json.loads(x)["loss"] for x in path.read_text().splitlines()] == [1, 1, 1, 1, 2]


def test_what_is_going_on_is_said(tmp_path):
    with report(tmp_path) as reporter, reporter.doing("compiling 64 x 64"):
        assert "compiling 64 x 64" in reporter.progress.tasks[0].description
    assert reporter.progress.tasks[0].description == "training"


def test_averages_look_at_steps_late_but_at_all():
    averages = Averages()
    for step in range(1, 5):
        averages.add(step, {"loss": jnp.asarray(float(step))})
    assert averages.take() == {"loss": 2.5} and averages.take() == {}
    averages.add(5, {"loss": jnp.asarray(10.0)})
    assert averages.take_loss() == 4.0  # of all five, whatever was reported in between
    averages.add(6, {"loss": jnp.asarray(7.0)})
    assert averages.take_loss() == 7.0


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stops(name, value):
    averages = Averages()
    averages.add(5, {"loss": jnp.asarray(1.0)} | {name: jnp.asarray(value)})
    with pytest.raises(DivergedError, match=f"step 5: {name} must be finite, got {value}"):
        averages.settle()


def test_the_clock_counts_steps_alone(monkeypatch):
    now = iter([0.0, 1.0, 10.0, 11.0, 12.0, 12.5, 13.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock()  # begins at 0
    with clock.pause():  # from 1 to 10
        clock.tick(30.0)
    clock.tick(10.0)
    assert clock.lap() == (1.0, 20.0)  # at 11: two steps in two seconds; begins again at 12
    assert clock.lap() is None


def test_memory_is_known_on_every_device():
    assert 0.01 < memory_gb() < 1000
