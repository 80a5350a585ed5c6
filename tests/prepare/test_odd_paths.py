"""Paths that stop nobody: links to themselves, closed folders, odd and long names, by command."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import shot
from oracles.preparations import ALL, ORIGIN, prepare, records, skipped

from magiccolor_jax import cli
from magiccolor_jax.data.listing import digest, files_below, is_picture, look_below
from magiccolor_jax.data.pictures import CaseError

COMMANDS = {"segment": "overlays", "lineart": "lines"}
"""Command -> a folder of its results, with a picture of each name."""


@pytest.fixture
def pictures(tmp_path):
    """A folder with one good picture."""
    picture = np.full((60, 80, 3), 255, np.uint8)
    picture[block_mask((60, 80), 10, 20, 40, 50) > 0] = (200, 40, 40)
    save(tmp_path / "in/good.png", picture)
    return tmp_path / "in"


def run(command, *words):
    return cli.run([command, *map(str, words)])


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def close(monkeypatch, folder):
    """Makes a folder one that cannot be listed, also for root."""
    listdir = os.listdir

    def refuse(path="."):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere.png"), "No such file or directory"),
        (Path.mkdir, "Is a directory"),
    ],
    ids=["loop", "dangling", "folder"],
)
def test_a_path_that_cannot_be_read_fails_alone(pictures, tmp_path, capsys, command, spoil, got):
    spoil(pictures / "bad.png")
    out = tmp_path / "out"
    assert run(command, pictures, "--out", out) == 1
    assert (out / COMMANDS[command] / "good.png").is_file()
    rule = f"bad.png: a picture can be read: expected a file that may be read, got {got}; check"
    assert rule in said(capsys)


def test_links_to_one_picture_are_one_name(pictures, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good.png").symlink_to(pictures / "good.png")
    assert run("segment", pictures, tmp_path / "other", "--out", tmp_path / "out") == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["lost+found", "good"])
def test_a_closed_folder_fails_alone(pictures, tmp_path, capsys, monkeypatch, command, name):
    (pictures / name).mkdir()
    close(monkeypatch, pictures / name)
    out = tmp_path / "out"
    assert run(command, pictures, "--out", out) == 1
    assert (out / COMMANDS[command] / "good.png").is_file()
    text = said(capsys)
    # Where a picture has its name, a folder goes by its whole path.
    assert f"failed {pictures / name if name == 'good' else name}: " in text
    assert "expected a folder that can be listed, got Permission denied; check" in text


@pytest.mark.parametrize("kind", ["", "pictures:", "frames:"])
def test_a_closed_folder_is_left_out_of_a_preparation(
    pictures, tmp_path, capsys, monkeypatch, kind
):
    (pictures / "lost+found").mkdir()
    close(monkeypatch, pictures / "lost+found")
    assert prepare(f"{kind}{pictures}", "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    text = said(capsys)
    assert "left out lost+found" in text and "1 train, 0 held_out, 1 left out" in text
    assert "expected a folder that can be listed, got Permission denied; check" in text


def test_closed_folders_are_listed_beside_the_files(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "b").mkdir()
    close(monkeypatch, tmp_path / "b")
    files, closed = look_below(tmp_path, is_picture)
    assert files == [tmp_path / "a/1.png"] and closed == [tmp_path / "b"]
    with pytest.raises(CaseError, match="got Permission denied"):
        files_below(tmp_path, is_picture)


def test_names_that_are_no_utf8_have_a_digest():
    assert digest(["b\udce9.png"]) != digest(["b\udce8.png"])
    assert digest(["bé.png"]) == "a2b189db8df7087e"


def test_a_name_that_is_no_utf8_leaves_out_its_frame_alone(tmp_path, capfd):
    clip, out = tmp_path / "clip", tmp_path / "out"
    for number, pixels in enumerate(shot(6)):
        save(clip / f"{number}.png", pixels)
    (clip / "2.png").rename(clip / "2\udce9.png")
    words = ("--stride", 1, "--alike", 2)
    assert prepare(f"frames:{clip}", "--out", out, *ORIGIN, *ALL, *words) == 1
    assert list(records(out)) == ["clip/0", "clip/4"] and list(skipped(out)) == ["clip/2\udce9"]
    assert "rename the file or its folder" in capfd.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "stem", ["絵" * 80, "x" * 250, "b\udce9"], ids=["signs", "letters", "no UTF-8"]
)
def test_long_and_odd_names_are_names(pictures, tmp_path, capfd, command, stem):
    (pictures / "good.png").rename(pictures / f"{stem}.png")
    out = tmp_path / "out"
    for _ in range(2):
        assert run(command, pictures, "--out", out) == 0, said(capfd)
    assert (out / COMMANDS[command] / f"{stem}.png").is_file()


def test_prompts_that_cannot_be_read(pictures, tmp_path, capsys):
    for path, got in ((tmp_path / "none.json", "No such file"), (pictures, "Is a directory")):
        words = ("--out", tmp_path / "out", "--prompts", path)
        assert run("segment", pictures, *words) == 1
        text = said(capsys)
        assert f"{path}: prompts can be read: expected a JSON file, got {got}" in text
        assert "check the path of --prompts" in text


def test_records_name_their_picture(pictures, tmp_path):
    """A name that is no UTF-8 comes back from JSON."""
    bad = pictures / "b\udce9.png"
    (pictures / "good.png").rename(bad)
    assert run("segment", pictures, "--out", tmp_path / "out") == 0
    (image,) = json.loads((tmp_path / "out/coco.json").read_text())["images"]
    assert image["file_name"] == str(bad)


@pytest.mark.parametrize("command", COMMANDS)
def test_pictures_that_may_not_be_looked_at_fail_alone(
    pictures, tmp_path, capsys, monkeypatch, command
):
    """A folder may be listed although its entries are closed."""
    save(pictures / "sealed/in.png", np.zeros((60, 80, 3), np.uint8))
    stat, open_file = os.stat, io.open

    def refuse(call):
        def guarded(path, *rest, **more):
            if isinstance(path, str | Path) and Path(path).parent == pictures / "sealed":
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **more)

        return guarded

    monkeypatch.setattr(os, "stat", refuse(stat))
    monkeypatch.setattr(io, "open", refuse(open_file))
    out = tmp_path / "out"
    assert run(command, pictures, "--out", out) == 1
    assert (out / COMMANDS[command] / "good.png").is_file()
    assert "failed sealed/in: " in (text := said(capsys)) and "got Permission denied" in text
