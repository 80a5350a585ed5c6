"""Atomic writes: what is on disk after an exception, after a kill, after success."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from magiccolor_jax.files import (
    atomic_directory,
    atomic_file,
    remove_directory,
    remove_rests,
    remove_rests_below,
    sha256_of,
)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "model.bin"
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_bytes() == b"half"
    assert listing(target.parent) == ["model.bin"]


def test_an_exception_keeps_the_old_file(tmp_path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk full"), atomic_file(target) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError("disk full")
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["model.bin"]


def test_success_replaces_the_old_file(tmp_path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "model"
    with atomic_directory(target) as temporary:
        (temporary / "part").write_text("x")
        assert not target.exists()
    assert listing(target) == ["part"]
    assert listing(target.parent) == ["model"]


def test_an_exception_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "model") as temporary:
        (temporary / "part").write_text("x")
        raise RuntimeError
    assert listing(tmp_path) == []


def test_a_folder_is_never_merged(tmp_path):
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(FileExistsError, match="must not exist yet"),
        atomic_directory(tmp_path / "model"),
    ):
        pytest.fail("the block must not run")
    assert listing(tmp_path) == ["model"]


def test_a_folder_is_removed_with_all_in_it(tmp_path):
    (tmp_path / "model/deep").mkdir(parents=True)
    (tmp_path / "model/deep/part").write_text("x")
    remove_directory(tmp_path / "model")
    assert listing(tmp_path) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="directory"):
        remove_directory(tmp_path / "file")
    assert listing(tmp_path) == ["file"]


def test_rests_are_removed_but_not_in_finished_folders(tmp_path):
    for name in ("a/.x.1.tmp", "a/b/.y.2.tmp", "done/.z.3.tmp", "done/record", ".hid/.w.4.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a/.folder.5.tmp").mkdir()
    remove_rests_below(tmp_path, whole="record")
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == [".hid/.w.4.tmp", "done/.z.3.tmp", "done/record"]
    assert listing(tmp_path / "a") == ["b"]
    remove_rests(tmp_path / ".hid", ".x.*.tmp")
    assert listing(tmp_path / ".hid") == [".w.4.tmp"]


@pytest.mark.parametrize("name", ["絵" * 85, "x" * 255, "short"])
def test_temporary_names_are_no_longer_than_may_be(tmp_path, name):
    with atomic_file(tmp_path / name) as temporary:
        assert temporary.name.startswith(f".{name[:40]}.")
    (tmp_path / name).unlink()
    with atomic_directory(tmp_path / name):
        pass
    remove_directory(tmp_path / name)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("x")
        with atomic_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) & 0o077 == 0o077 & ~umask


@pytest.mark.parametrize("function", ["atomic_file", "atomic_directory"])
def test_a_killed_process_leaves_the_old_state(tmp_path, function):
    """kill -9 in the middle: what was there stays, and a new attempt succeeds."""
    target = tmp_path / "model"
    if function == "atomic_file":
        target.write_text("old")
    script = f"""
        import os, pathlib, signal
        from magiccolor_jax.files import {function}
        with {function}(pathlib.Path({str(target)!r})) as temporary:
            part = temporary if temporary.is_file() else temporary / "part"
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert killed.returncode == -signal.SIGKILL
    if function == "atomic_file":
        assert target.read_text() == "old"
        with atomic_file(target) as temporary:
            temporary.write_text("new")
        assert target.read_text() == "new"
    else:
        assert not target.exists()
        with atomic_directory(target):
            pass
        assert listing(target) == []


@pytest.mark.parametrize("size", [0, 1, (1 << 22) + 17])
def test_sha256(tmp_path, size):
    content = b"ab" * (size // 2 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
