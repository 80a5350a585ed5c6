"""Shards and sidecars: written whole or not at all, read anywhere, never mixed up."""

import concurrent.futures
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from oracles.training_folders import PROVENANCE, TARGET_SHAPE, assert_same, make_scene

from magiccolor_jax.data import shards
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Outline
from magiccolor_jax.data.shards import Records, write_records

COUNT = 7
SCENES = [make_scene(f"scene{i}", 1 + i % 3, seed=10 * i, lines=i % 2 == 0) for i in range(COUNT)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "set"
    write_records(
        folder, ((s, PROVENANCE._replace(note=s.name)) for s in SCENES), scenes_per_shard=3
    )
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / "set")


def test_what_is_written_is_read(written: Path):
    names = [f"0000{i}-of-00003" for i in range(3)]
    ends = (".array_record", ".outlines.npy")
    assert sorted(os.listdir(written)) == [name + end for name in names for end in ends]
    source = Records(written)
    assert len(source) == COUNT
    for index in (6, 0, 3, 2, 5, 1, 4):
        assert source.outline(index) == Outline(*TARGET_SHAPE, 1 + index % 3)
        record = source.record(index)
        assert_same(record.scene, SCENES[index])
        assert_same(source[index], SCENES[index])
        assert record.provenance.note == f"scene{index}"
        assert record.scene.path == written / f"{names[index // 3]}.array_record/record {index % 3}"


def test_the_paths_of_the_shards_are_returned(tmp_path: Path):
    found = write_records(tmp_path / "a", [(SCENES[0], PROVENANCE)] * 2, scenes_per_shard=2)
    assert found == [tmp_path / "a/00000-of-00001.array_record"] and found[0].is_file()


def test_folders_below_and_several_folders(tmp_path: Path):
    for name, scene in (("b10", 0), ("b9", 1), ("deep/er", 2)):
        write_records(tmp_path / "all" / name, [(SCENES[scene], PROVENANCE)])
    write_records(tmp_path / "c", [(SCENES[3], PROVENANCE)])
    source = Records(tmp_path / "all", tmp_path / "c")
    assert [source[i].name for i in range(4)] == ["scene1", "scene0", "scene2", "scene3"]


@pytest.mark.parametrize("index", [-1, COUNT])
def test_no_such_scene(written: Path, index: int):
    for read in (Records(written).__getitem__, Records(written).outline):
        with pytest.raises(IndexError, match=f"no scene {index}"):
            read(index)


def test_outlines_decode_nothing(written: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "decode_record", None)
    assert Records(written).outline(6).instances == 1


def _name(source: Records, index: int) -> str:
    return source[index].name


@pytest.mark.parametrize("how", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_worker_processes(written: Path, how: str):
    source = Records(written)
    assert source[0].name == "scene0"  # opened here, before the workers are
    context = multiprocessing.get_context(how)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        names = list(pool.map(_name, [source] * COUNT, range(COUNT), timeout=100))
    assert names == [scene.name for scene in SCENES]


def test_readers_are_neither_pickled_nor_shared_with_a_fork(
    written: Path, monkeypatch: pytest.MonkeyPatch
):
    source = Records(written)
    assert source[0].name == "scene0" and len(source._readers) == 1
    again = cloudpickle.loads(cloudpickle.dumps(source))
    assert not again._readers and again[6].name == "scene6" and repr(again) == repr(source)
    monkeypatch.setattr(os, "getpid", lambda: -7)  # as in a forked child
    assert source[0].name == "scene0" and len(source._readers) == 2


def test_threads(written: Path):
    source = Records(written)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: source[i % COUNT].name, range(60)))
    assert names == [f"scene{i % COUNT}" for i in range(60)]
    assert len(source._readers) == 3


SHARD, SIDECAR = "00001-of-00003.array_record", "00001-of-00003.outlines.npy"


def _cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _version(path: Path) -> None:
    table = np.load(path)
    table[0, 0] = 2
    np.save(path, table)


DAMAGE = {
    "truncated shard": (lambda f: _cut(f / SHARD, -1000), f"{SHARD}: shard and sidecar belong"),
    "half a shard": (lambda f: _cut(f / SHARD, 2000), "expected .* bytes of 3 records, got 2000"),
    "zeroed shard": (lambda f: _zero(f / SHARD), f"{SHARD}: .*can be read|belong together"),
    "no sidecar": (lambda f: (f / SIDECAR).unlink(), f"{SIDECAR}: a shard has a sidecar"),
    "no shard": (lambda f: (f / SHARD).unlink(), f"expected 3 shards.*got no {SHARD}"),
    "truncated sidecar": (lambda f: (f / SIDECAR).write_bytes(b"\x93NUMPY"), "can be read"),
    "empty sidecar": (lambda f: (f / SIDECAR).write_bytes(b""), "can be read"),
    "objects": (
        lambda f: np.save(f / SIDECAR, np.array([{}]), allow_pickle=True),
        "can be read, got Object arrays cannot be loaded",
    ),
    "zip": (lambda f: (f / SIDECAR).write_bytes(b"PK\3\4" + bytes(99)), "can be read"),
    "floats": (lambda f: np.save(f / SIDECAR, np.zeros((3, 4))), "got float64 .3, 4."),
    "no rows": (lambda f: np.save(f / SIDECAR, np.zeros((0, 4), np.int64)), "got int64 .0, 4."),
    "empty shard": (lambda f: (f / SHARD).write_bytes(b""), "got 0 bytes of 3 records"),
    "another version": (lambda f: _version(f / SIDECAR), "expected version 1, got version 2"),
    "another set": (
        lambda f: (f / SHARD).rename(f / "00000-of-00002.array_record"),
        "expected 2 shards.*got no 00001-of-00002.array_record; also",
    ),
    "as many other records": (
        lambda f: shutil.copy(f / "00000-of-00003.outlines.npy", f / SIDECAR),
        f"{SHARD}: shard and sidecar belong together: ",
    ),
    "fewer records": (
        lambda f: np.save(f / SIDECAR, np.load(f / SIDECAR)[:3]),
        "expected .* of 3 records, got .* of 2 records",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_sets_are_not_opened(folder: Path, name: str):
    damage, says = DAMAGE[name]
    damage(folder)
    with pytest.raises(CaseError, match=says):
        Records(folder)


@pytest.mark.parametrize(("column", "says"), [(0, "height"), (2, "instances"), (3, "CRC-32")])
def test_a_record_that_the_sidecar_does_not_list(folder: Path, column: int, says: str):
    table = np.load(folder / SIDECAR)
    table[2, column] = 99
    np.save(folder / SIDECAR, table)
    source = Records(folder)
    assert source[3].name == "scene3"
    with pytest.raises(CaseError, match=f"{SHARD}/record 1: .*sidecar lists: .*{says} 99"):
        source[4]


def test_damage_within_a_shard_is_found_by_reading(folder: Path):
    data = bytearray((folder / SHARD).read_bytes())
    place = data.index(b"scene4")
    data[place] ^= 1
    (folder / SHARD).write_bytes(data)
    source = Records(folder)
    assert source[3].name == "scene3"
    with pytest.raises(CaseError, match=f"{SHARD}/record 1: a shard can be read: .*hash mismatch"):
        source[4]


def test_no_shards(tmp_path: Path):
    with pytest.raises(CaseError, match="NNNNN-of-MMMMM.array_record beside .*, got nothing"):
        Records(tmp_path)


class FullDisk:
    """A writer that fails as array_record's does, when it writes or only when it is closed."""

    def __init__(self, when: str, path: str):
        self.when, self.path, self.count = when, Path(path), 0

    def write(self, data: bytes) -> None:
        self.count += 1
        self.path.write_bytes(data)
        if self.when == "write" and self.count == 2:
            raise RuntimeError("write() failed: No space left on device")

    def close(self) -> None:
        if self.when == "close":
            raise RuntimeError("write() failed: No space left on device")


@pytest.mark.parametrize("when", ["write", "close"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str):
    make = lambda path, options: FullDisk(when, path)  # noqa: E731
    monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", make)
    with pytest.raises(OSError, match=r"00000\.array_record: .*No space left on device"):
        write_records(tmp_path / "set", [(scene, PROVENANCE) for scene in SCENES])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_at_the_sidecar_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_records(tmp_path / "set", [(SCENES[0], PROVENANCE)])
    assert not list(tmp_path.iterdir())


def test_a_bad_scene_leaves_nothing(tmp_path: Path):
    def scenes() -> Iterator[tuple]:
        yield from ((scene, PROVENANCE) for scene in SCENES[:4])
        yield SCENES[4], PROVENANCE._replace(licence="?")

    with pytest.raises(CaseError, match="made/scene4/provenance/licence"):
        write_records(tmp_path / "set", scenes(), scenes_per_shard=2)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(written: Path):
    with pytest.raises(FileExistsError):
        write_records(written, [(SCENES[0], PROVENANCE)])


@pytest.mark.parametrize(("scenes", "per"), [([], 1), ([(SCENES[0], PROVENANCE)], 0)])
def test_nothing_to_write(tmp_path: Path, scenes: list, per: int):
    with pytest.raises(ValueError, match="write_records: "):
        write_records(tmp_path / "set", scenes, scenes_per_shard=per)
    assert not list(tmp_path.iterdir())


def test_few_shards_are_open_at_once(written: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "OPEN_SHARDS", 2)
    source = Records(written)
    for index in (0, 3, 6, 0):
        assert source[index].name == f"scene{index}"
    assert len(source._readers) == 2


def test_other_records_have_another_fingerprint(written: Path, tmp_path: Path):
    again = shutil.copytree(written, tmp_path / "elsewhere")
    assert Records(again).fingerprint() == Records(written).fingerprint()
    write_records(tmp_path / "less", ((s, PROVENANCE) for s in SCENES[1:]))
    assert Records(tmp_path / "less").fingerprint() != Records(written).fingerprint()
