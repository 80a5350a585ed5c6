"""A re-run of `magiccolor segment`: what a person changed, and what a run that died left."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
from oracles.case_folders import block_mask, save, save_both
from PIL import Image

from magiccolor_jax import cli
from magiccolor_jax.data import rle
from magiccolor_jax.files import locked


@pytest.fixture
def pictures(tmp_path):
    """Two discs on white, and their mirror image."""
    picture = np.full((120, 160, 3), 255, np.uint8)
    for x, y, radius, color in ((40, 60, 25, (200, 40, 40)), (110, 40, 20, (40, 60, 200))):
        cv2.circle(picture, (x, y), radius, color, -1)
    return save_both(tmp_path / "in", picture)


def cut(*words):
    return cli.run(["segment", *map(str, words)])


def annotated(out):
    """Picture's stem -> the masks that coco.json has, in its order."""
    coco = json.loads((out / "coco.json").read_text())
    numbers = {image["id"]: image["file_name"].split("/")[-1][:-4] for image in coco["images"]}
    found = {name: [] for name in numbers.values()}
    assert len(found) == len(coco["images"])
    for row in coco["annotations"]:
        mask = rle.decode(row["segmentation"])
        assert row["area"] == mask.sum()
        found[numbers[row["image_id"]]].append(mask)
    return found


def hidden(out):
    return [path for path in out.rglob(".*") if path.name.endswith(".tmp")]


def test_a_deleted_mask_stays_deleted(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    folder = out / "instances/one"
    first = np.asarray(Image.open(folder / "1.png")) > 0
    (folder / "2.png").unlink()
    capsys.readouterr()
    for _ in range(2):
        assert cut(pictures, "--out", out) == 0
        assert not (folder / "2.png").exists()
        said = " ".join(capsys.readouterr().err.split())
        assert "kept one as it was changed by hand: 2.png deleted" in said
        assert "kept deep/two" not in said
        (mask,) = annotated(out)["one"]
        np.testing.assert_array_equal(mask, first)
    assert cut(pictures, "--out", out, "--max-count", 1) == 1
    assert "changed by hand are kept" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["1.png", "instances.json"]
    assert len(annotated(out)["one"]) == len(annotated(out)["two"]) == 1
    (folder / "1.png").unlink()
    assert cut(pictures, "--out", out) == 0 and annotated(out)["one"] == []


def test_coco_has_masks_as_a_person_left_them(pictures, tmp_path):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    folder, painted = out / "instances/one", block_mask((120, 160), 10, 20, 50, 70)
    (folder / "2.png").unlink()
    save(folder / "1.png", painted)
    save(folder / "10.png", painted[:, ::-1].copy())
    assert cut(pictures, "--out", out) == 0
    found = annotated(out)
    assert len(found["one"]) == len(found["two"]) == 2
    np.testing.assert_array_equal(found["one"], [painted > 0, painted[:, ::-1] > 0])
    coco = json.loads((out / "coco.json").read_text())
    assert coco["annotations"][2]["bbox"] == [20, 10, 51, 41]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((120, 160), np.uint8), "a mask marks at least one pixel"),
        (np.full((60, 80), 255, np.uint8), "a mask has the size of its picture"),
        (None, "a picture can be read"),
    ],
)
def test_a_mask_that_is_none_is_told_and_left_out(pictures, tmp_path, capsys, content, message):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    path = out / "instances/one/1.png"
    path.write_bytes(b"") if content is None else save(path, content)
    before = path.read_bytes()
    assert cut(pictures, "--out", out) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"left out of coco.json {path}" in said and message in said
    assert path.read_bytes() == before
    assert {name: len(found) for name, found in annotated(out).items()} == {"one": 1, "two": 2}


@pytest.mark.parametrize("key", ["file_name", "height", "width", "instances", "made_by", "files"])
def test_a_record_that_lacks_something_is_none_of_ours(pictures, tmp_path, capsys, key):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    path = out / "instances/one/instances.json"
    record = json.loads(path.read_text())
    del record[key]
    path.write_text(json.dumps(record))
    (out / "coco.json").unlink()
    assert cut(pictures, "--out", out) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "failed one" in said and "masks that were changed by hand are kept" in said
    assert list(annotated(out)) == ["two"] and json.loads(path.read_text()) == record


DYING = """
    import os, signal, sys
    from pathlib import Path
    from magiccolor_jax import cli

    rename = Path.{function}

    def die(path, *rest):
        if "{where}" in path.as_posix():
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, *rest)

    Path.{function} = die
    cli.run(sys.argv[1:])
"""


@pytest.mark.parametrize("where", ["instances/", "overlays/deep", "/.coco.json"])
def test_what_a_killed_run_left_is_removed(pictures, tmp_path, where):
    out = tmp_path / "out"
    function = "rename" if where == "instances/" else "replace"
    script = textwrap.dedent(DYING.format(where=where, function=function))
    words = [sys.executable, "-c", script, "segment", str(pictures), "--out", str(out)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert hidden(out)
    assert cut(pictures, "--out", out) == 0
    assert not hidden(out)
    assert {name: len(found) for name, found in annotated(out).items()} == {"one": 2, "two": 2}


HALFWAY = """
    import os, signal, sys
    from magiccolor_jax import cli

    unlink = os.unlink

    def die(path, **rest):
        unlink(path, **rest)
        if str(path).endswith(".png"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.unlink = die
    cli.run(sys.argv[1:])
"""


def test_a_run_killed_halfway_through_a_removal_was_nobodys_work(pictures, tmp_path):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    again = ["segment", str(pictures), "--out", str(out), "--max-count", "1"]
    words = [sys.executable, "-c", textwrap.dedent(HALFWAY), *again]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert hidden(out) and cli.run(again) == 0
    assert not hidden(out)
    assert {name: len(found) for name, found in annotated(out).items()} == {"one": 1, "two": 1}


def test_hidden_files_of_others_stay(pictures, tmp_path):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    kept = [out / ".mine.tmp", out / "instances/one/.mine.tmp", out / "other/.mine.tmp"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert cut(pictures, "--out", out) == 0
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("command", ["segment", "lineart"])
def test_a_folder_holds_one_run_at_a_time(pictures, tmp_path, capsys, command):
    out = tmp_path / "out"
    words = [command, str(pictures), "--out", str(out)]
    assert cli.run(words) == 0
    capsys.readouterr()
    with locked(out / f".{command}.lock", "test"):
        assert cli.run(words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"a folder holds one run of {command} at a time" in said
    assert f"process {os.getpid()}" in said
    assert cli.run(words) == 0


def test_an_overlay_that_is_gone_is_drawn_again(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    shown = out / "overlays/one.png"
    before = shown.read_bytes()
    shown.unlink()
    assert cut(pictures, "--out", out) == 0
    assert shown.read_bytes() == before
    assert "one: 2 by the plain ground" in capsys.readouterr().err


def test_a_picture_in_the_place_of_an_overlay_is_told(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    mine = block_mask((120, 160), 10, 20, 50, 70)
    save(out / "overlays/one.png", mine)
    assert cut(pictures, "--out", out) == 1
    assert "overlays/one.png exists and is none of ours" in capsys.readouterr().err
    np.testing.assert_array_equal(np.asarray(Image.open(out / "overlays/one.png")), mine)
    assert len(annotated(out)["one"]) == 2
