"""Runs from start to end, broken off in every way, and gone on with."""

import errno
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from oracles.runs import cheap_run, looking, losses_of, write_pages, write_start
from PIL import Image
from rich.console import Console

from magiccolor_jax.data.loader import DataConfig
from magiccolor_jax.data.samples import Play
from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.loop import DONE, FAILED, PREEMPTED, Training
from magiccolor_jax.training.program import Program
from magiccolor_jax.training.record import read_record
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.stored import StoredParameters

SCRIPT = Path(__file__).parents[1] / "oracles" / "train_once.py"
ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.slow  # every run compiles, or starts a process that does


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model and pages, and a cache that all runs of this file share: they compile alike."""
    folder = tmp_path_factory.mktemp("training")
    write_start(folder / "start")
    write_pages(folder / "pages", 4)
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)


def train(folder, out, **changes):
    config = cheap_run(folder, out=folder / out, **changes)
    return Training(plan_training(config), Console(quiet=True)).run()


def in_process(folder, *words, devices=1):
    """Exit code of a run in a process of its own, which may kill itself."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, words)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode in (DONE, PREEMPTED, -signal.SIGKILL), run.stderr
    return run.returncode


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted run."""
    assert train(folder, "whole", **looking(folder)) == DONE
    return folder / "whole"


def averages(run, step=6):
    """What a checkpoint holds to be used."""
    stored = StoredParameters(run / "checkpoints", step)
    return {path: stored.read(path) for path in stored.specs}


def assert_same(run, other):
    """Losses, and what was learned, bit for bit."""
    assert losses_of(run) == losses_of(other) and len(losses_of(run)) == 6
    found, expected = averages(run), averages(other)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def test_a_run_leaves_everything_behind(whole):
    record = read_record(whole)
    assert record["state"] == "done" and record["step"] == 6 and record["error"] is None
    assert record["metrics"]["loss"] == losses_of(whole)[-1][1]
    assert record["config"]["optim"]["lr"] == 1e-3 and record["seed"] == 0
    assert math.isfinite(record["metrics"]["validation/denoise"])
    assert (whole / "checkpoints" / "3").is_dir() and (whole / "checkpoints" / "6").is_dir()
    assert list((whole / "tensorboard").glob("events.*"))
    preview = np.asarray(Image.open(whole / "previews" / "0000006.png"))
    assert preview.shape == (2 * 68, 4 * 68, 3) and preview.std() > 20


def test_a_finished_run_has_nothing_to_do(folder, whole):
    before = (whole / "metrics.jsonl").read_bytes()
    assert train(folder, "whole", **looking(folder)) == DONE
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_kill_9_and_on(folder, whole):
    """Within the steps that are profiled: the next part traces what is left of them."""
    words = ("--out", "killed", "--profile", 3, 5)
    assert in_process(folder, *words, "--die-at", 4) == -signal.SIGKILL
    assert [step for step, _ in losses_of(folder / "killed")] == [1, 2, 3, 4]
    assert in_process(folder, *words) == DONE
    assert_same(folder / "killed", whole)
    assert list((folder / "killed" / "profile").rglob("*.xplane.pb"))


def test_kill_9_during_a_save_and_on(folder, whole):
    run = folder / "torn"
    assert in_process(folder, "--out", "torn", "--die-in-save", 6) == -signal.SIGKILL
    assert not (run / "checkpoints" / "6").exists()
    assert in_process(folder, "--out", "torn") == DONE
    assert_same(run, whole)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6"]


def test_sigterm_saves_and_goes_on(folder, whole):
    """And keeps to what it began with, whatever has become of the folder that it started from."""
    run = folder / "stopped"
    assert in_process(folder, "--out", "stopped", "--term-at", 2) == PREEMPTED
    stopped = read_record(run)
    assert stopped["state"] == "preempted" and stopped["step"] == 2
    assert train(folder, "stopped") == DONE
    assert_same(run, whole)
    done = read_record(run)
    assert done["state"] == "done" and done["started"] == stopped["started"]
    assert done["start"] == stopped["start"]


def test_done_is_said_when_the_last_checkpoint_is_on_the_disk(folder, monkeypatch):
    wait = Checkpoints.wait

    def full(self):
        wait(self)
        raise OSError(errno.ENOSPC, "no room for a checkpoint")

    monkeypatch.setattr(Checkpoints, "wait", full)
    with pytest.raises(OSError, match="no room"):
        train(folder, "full")
    assert read_record(folder / "full")["state"] == "failed"
    monkeypatch.undo()  # what was written is whole all the same
    assert train(folder, "full") == DONE
    assert read_record(folder / "full")["state"] == "done"


def test_what_diverges_is_named_and_never_saved(folder, monkeypatch):
    def poisoned(self, rows):
        batch = put(self, rows)
        seen.append(batch)
        return batch._replace(target=batch.target * (np.nan if len(seen) == 5 else 1))

    seen, put = [], Program.put
    monkeypatch.setattr(Program, "put", poisoned)
    assert train(folder, "nan", save=SaveConfig(every=2)) == FAILED
    record = read_record(folder / "nan")
    assert record["state"] == "failed"
    assert "step 5: loss must be finite, got nan" in record["error"]
    assert "page" in record["error"] and "checkpoint 4 is the last good one" in record["error"]
    assert sorted(p.name for p in (folder / "nan" / "checkpoints").iterdir()) == ["2", "4"]
    monkeypatch.undo()
    assert train(folder, "nan", save=SaveConfig(every=2)) == DONE


def test_other_data_is_refused(folder, whole):
    with pytest.raises(ValueError, match="goes on with the data that it began with"):
        train(folder, "whole", seed=5, **looking(folder))
    other = cheap_run(folder).optim
    with pytest.raises(ValueError, match="does not fit this training"):
        train(folder, "whole", optim=replace(other, kind="adafactor"), **looking(folder))
    with pytest.raises(ValueError, match="goes on with the data that it began with"):
        calm = DataConfig(sources=(f"cases:{folder / 'pages'}",), play=Play.off())
        train(folder, "whole", data=calm)
    with pytest.raises(ValueError, match="expected at most --steps 3, got a checkpoint beyond"):
        train(folder, "whole", steps=3, **looking(folder))
    assert read_record(folder / "whole")["state"] == "done"


def test_no_source_and_a_batch_that_does_not_divide(folder):
    with pytest.raises(ValueError, match="data.sources must name at least one folder"):
        train(folder, "none", data=DataConfig())
    with pytest.raises(ValueError, match="accumulate must divide batch"):
        train(folder, "none", batch=3, accumulate=2)
    assert not (folder / "none").exists()


def test_several_programs_do_what_one_does(folder, monkeypatch, compile_quickly):
    """On CPU, parts of a batch are launched one by one."""
    settings = {"accumulate": 2, "steps": 2}
    assert train(folder, "apart", **settings) == DONE
    monkeypatch.setattr(
        Program, "step", lambda self, *given: self._step(self.constants, *given, self.key)
    )
    assert train(folder, "at_once", **settings) == DONE
    apart, at_once = losses_of(folder / "apart"), losses_of(folder / "at_once")
    assert len({loss for _, loss in apart}) == 2
    np.testing.assert_allclose(apart, at_once, rtol=1e-5)


def test_a_run_goes_on_on_other_devices(folder):
    words = ("--out", "moved", "--batch", 8)
    assert in_process(folder, *words, "--die-at", 4) == -signal.SIGKILL
    assert in_process(folder, *words, "--mesh", 2, 2, 2, devices=8) == DONE
    assert in_process(folder, "--out", "stayed", "--batch", 8) == DONE
    stayed = losses_of(folder / "stayed")
    np.testing.assert_allclose(losses_of(folder / "moved"), stayed, rtol=1e-5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_processes(folder, out, *both, first=()):
    """Exit codes of a run on two processes of four devices each.

    Args:
        both: more words for both of them.
        first: more words for the first of them alone.
    """
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    words = ["--out", out, "--batch", "8", "--mesh", "2", "2", "2", "--port", str(free_port())]
    command = [sys.executable, str(SCRIPT), str(folder), *words, *both, "--process"]
    pair = [
        subprocess.Popen([*command, str(i), "2", *(first if i == 0 else ())], env=environment)
        for i in range(2)
    ]
    return [process.wait(timeout=900) for process in pair]


def test_one_device_eight_and_two_processes_train_alike(folder):
    meshes = {"one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "mixed": (2, 2, 2)}
    for name, mesh in meshes.items():
        in_process(folder, "--out", name, "--batch", 8, "--mesh", *mesh, devices=np.prod(mesh))
    assert two_processes(folder, "two", "--look") == [DONE, DONE]
    assert sorted(p.name for p in (folder / "two" / "previews").iterdir()) == [
        "0000000.png",
        "0000006.png",
    ]
    assert math.isfinite(read_record(folder / "two")["metrics"]["validation/loss"])
    expected = losses_of(folder / "one")
    assert len(expected) == 6
    for name in (*list(meshes)[1:], "two"):
        np.testing.assert_allclose(losses_of(folder / name), expected, rtol=1e-5)


def test_a_signal_to_one_process_stops_all_of_them(folder):
    assert two_processes(folder, "told", first=("--term-at", "2")) == [PREEMPTED, PREEMPTED]
    stopped = read_record(folder / "told")
    assert stopped["state"] == "preempted" and 2 < stopped["step"] < 6
    words = ("--out", "told", "--batch", 8, "--mesh", 2, 2, 2)
    assert in_process(folder, *words, devices=8) == DONE
    assert len(losses_of(folder / "told")) == 6
