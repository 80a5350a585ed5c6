"""Threads, and memory that is used again."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from converters import streaming
from converters.containers import Container, FileRecord, open_weights, write_weights
from converters.streaming import Arena, in_parallel
from magiccolor_jax.tensorfile import TensorSpec

FLOAT = np.dtype(np.float32)


def test_an_arena_gives_the_same_memory_again():
    arena = Arena()
    first, second = arena.empty((2, 3), FLOAT), arena.empty((4,), FLOAT)
    assert first.shape == (2, 3) and first.dtype == FLOAT
    assert not np.shares_memory(first, second)
    arena.clear()
    again = arena.empty((5,), np.dtype(np.int8))
    assert np.shares_memory(first, again) and again.flags.c_contiguous


def test_an_arena_grows():
    arena = Arena()
    arena.empty((2,), FLOAT)
    arena.clear()
    assert arena.empty((100, 7), FLOAT).shape == (100, 7)


def test_results_keep_the_order_of_the_items():
    assert in_parallel(lambda item, _: -item, [3, 1, 2], size=lambda item: item) == [-3, -1, -2]


def test_the_largest_items_begin_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "WORKERS", 1)
    begun = []
    in_parallel(lambda item, _: begun.append(item), [1, 3, 2], size=lambda item: item)
    assert begun == [3, 2, 1]


def test_a_failure_stops_the_others():
    items = ["endless", "bad"]
    working, stopped = threading.Event(), []

    def work(item: str, arena: Arena) -> None:
        if item == "bad":
            assert working.wait(10)
            raise ValueError("no good")
        try:
            while True:
                arena.clear()
                working.set()
        finally:
            stopped.append(item)

    with pytest.raises(ValueError, match="no good"):
        in_parallel(work, items, size=items.index)
    assert stopped == ["endless"]


@pytest.mark.parametrize("container", ["safetensors", "torch", "torch_legacy"])
def test_files_are_written_from_memory_that_is_used_again(tmp_path: Path, container: Container):
    tensors = {name: np.full((3, 5), value, FLOAT) for value, name in enumerate("abc")}
    record = FileRecord(
        path="x",
        container=container,
        tensors={name: TensorSpec(FLOAT, (3, 5)) for name in tensors},
    )
    memory = np.empty((3, 5), FLOAT)

    def reused():
        for name, tensor in tensors.items():
            memory[:] = tensor
            yield name, memory

    path = tmp_path / ("x.safetensors" if container == "safetensors" else "x.pth")
    write_weights(path, record, reused())
    with open_weights(path) as weights:
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(weights.read(name), tensor)


def test_one_whole_legacy_file_at_a_time(tmp_path: Path):
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    entered = threading.Event()

    def enter_second() -> None:
        with open_weights(paths[1]):
            entered.set()

    other = threading.Thread(target=enter_second)
    with open_weights(paths[0]):
        other.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    other.join()
