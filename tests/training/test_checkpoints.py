"""Checkpoints that do not fit, that are torn, and disks that are full."""

import asyncio
import errno
import gc
import itertools
from dataclasses import replace

import pytest
from oracles.runs import cheap_run, write_pages, write_start
from oracles.trained import write_run
from orbax.checkpoint._src.serialization import serialization

from magiccolor_jax.training.checkpoints import Checkpoints
from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.setup import plan_training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_start(folder / "start")
    write_pages(folder / "pages", 2)
    config = cheap_run(folder, save=SaveConfig(every=1, keep=1))
    write_run(config, {1: 0.9, 2: 0.1, 3: 0.7, 4: 0.5})
    return config


def restore(config, step=4):
    design = plan_training(config).design
    checkpoints = Checkpoints(config.out / "checkpoints", config.save)
    try:
        return checkpoints.restore(step, design.state, design.shardings)
    finally:
        checkpoints.close()


def test_the_newest_and_the_best_are_kept(run):
    assert Checkpoints(run.out / "checkpoints").steps() == [2, 4]
    assert restore(run)[1].step == 4


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"optim": OptimConfig(kind="adafactor")}, "rest/optimizer/.*: expected .* got nothing"),
        ({"average": None}, r"average/denoiser/.*: expected nothing, got \(16,\) float32"),
        ({"parameters": "bfloat16"}, "trainable/.*: expected .* bfloat16, got .* float32"),
    ],
)
def test_what_does_not_fit_is_listed(run, changes, difference):
    with pytest.raises(ValueError, match=f"does not fit this training(.|\n)*{difference}"):
        restore(replace(run, **changes))


def test_reads_beside_one_that_fails_come_to_their_end(run, monkeypatch):
    """Nothing is left that would be told of when it is collected."""
    read, calls = serialization._read_and_create_array, itertools.count()

    async def fail_once(*args, **kwargs):
        number = next(calls)
        for _ in range(number % 12):  # some begin in the very round that ends the loop
            await asyncio.sleep(0)
        if number == 49:
            raise ValueError("torn in the middle")
        return await read(*args, **kwargs)

    monkeypatch.setattr(serialization, "_read_and_create_array", fail_once)
    with pytest.raises(ValueError, match="must be whole; .* Got ValueError: torn in the middle$"):
        restore(run)
    gc.collect()


def test_a_torn_file_is_not_taken_for_another_model(run):
    """Last of all: it breaks the checkpoint."""
    files = [p for p in (run.out / "checkpoints/4/trainable").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match="must be whole; remove it, the .* goes on from 2.* Error reading"
    ):
        restore(run)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_os_error(run, code, monkeypatch):
    checkpoints = Checkpoints(run.out / "checkpoints")

    def fail():
        raise ValueError(f"RESOURCE_EXHAUSTED: Failed to write [os_error_code='{code}']")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fail)
    with pytest.raises(OSError, match="no room for a checkpoint") as caught:
        checkpoints.wait()
    assert caught.value.errno == code
