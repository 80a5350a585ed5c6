"""Packages of drawings: pinned, brought once, read without running anything."""

import hashlib
import os
import shutil
import stat

import pytest
from art_packages import Package, bring, contents, unpack
from oracles.packages import deb, pinned, tgz

from magiccolor_jax.data.pictures import CaseError

FILES = {"package/a.txt": b"one", "package/sub/b.txt": b"two"}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A client that serves FILES and writes down how it was called."""
    served = tmp_path / "served.tgz"
    served.write_bytes(tgz(FILES))
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp {served} ./toys-1.0.0.tgz\n')
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    return Package("npm", "@toys/icons", "1.0.0", digest), tmp_path / "calls"


def test_a_package_is_brought_once(tmp_path, npm):
    package, calls = npm
    path = bring(package, tmp_path / "packages", "https://registry.example")
    assert contents(path) == FILES
    assert bring(package, tmp_path / "packages") == path
    (call,) = calls.read_text().splitlines()
    assert call.endswith("@toys/icons@1.0.0 --registry https://registry.example")
    assert [file.name for file in path.parent.iterdir()] == ["toys-icons-1.0.0.tgz"]


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(tmp_path, npm):
    package, _ = npm
    other = package._replace(sha256="0" * 64)
    with pytest.raises(CaseError, match=f"expected SHA-256 {'0' * 64} .*got {package.sha256}"):
        bring(other, tmp_path / "packages")
    assert not list((tmp_path / "packages").iterdir())


def test_a_damaged_file_is_refused(tmp_path):
    package = pinned(tmp_path, tgz(FILES))
    (tmp_path / package.file).write_bytes(b"other")
    with pytest.raises(CaseError, match="remove the file and run again"):
        bring(package, tmp_path)


@pytest.mark.parametrize("registry", ["npm", "debian"])
def test_without_a_client_the_error_says_which_file_to_put_where(tmp_path, monkeypatch, registry):
    monkeypatch.setenv("PATH", str(tmp_path))
    package = Package(registry, "toys", "1:2.0", "f" * 64)
    with pytest.raises(CaseError) as caught:
        bring(package, tmp_path / "packages")
    assert str(tmp_path / "packages" / package.file) in str(caught.value)
    assert "f" * 64 in str(caught.value) and ":" not in package.file


def test_a_debian_package_is_read_with_its_links(tmp_path):
    path = tmp_path / "toys.deb"
    links = {"./usr/b/two.svg": "../a/one.svg", "./usr/b/lost.svg": "../../etc/none"}
    path.write_bytes(deb({"./usr/a/one.svg": b"<svg/>"}, links))
    assert contents(path) == {"usr/a/one.svg": b"<svg/>", "usr/b/two.svg": b"<svg/>"}


@pytest.mark.parametrize("name", ["toys.deb", "toys.tgz"])
def test_what_is_no_archive_is_named(tmp_path, name):
    whole = {"toys.deb": deb({"./a": b"a" * 5000}), "toys.tgz": tgz({"a": os.urandom(5000)})}[name]
    for content in (b"nothing of the kind", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError, match="a package is an archive"):
            contents(tmp_path / name)


def test_files_are_unpacked_below_the_folder_only(tmp_path):
    path = tmp_path / "toys.tgz"
    path.write_bytes(tgz(FILES))
    unpack(path, tmp_path / "there")
    assert (tmp_path / "there" / "sub" / "b.txt").read_bytes() == b"two"
    path.write_bytes(tgz({"package/../../out.txt": b"no"}))
    with pytest.raises(CaseError, match="files lie in its folder"):
        unpack(path, tmp_path / "there")
    assert not shutil.which("out.txt", path=tmp_path) and not (tmp_path / "out.txt").exists()
