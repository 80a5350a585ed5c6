"""What `magiccolor prepare` takes for an input, where other things stand beside the pictures."""

import shutil

import pytest
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import write_pictures
from oracles.preparations import ALL, ORIGIN, prepare, records, skipped

from magiccolor_jax import cli


@pytest.fixture
def own(tmp_path):
    """Pictures, and among them what `magiccolor segment` and `lineart` made of them."""
    folder = write_pictures(tmp_path / "own", 2)
    (folder / "broken.png").unlink()
    (folder / "deep").mkdir()
    (folder / "1.png").rename(folder / "deep/1.png")
    assert cli.run(["segment", str(folder), "--out", str(folder / "cut")]) == 0
    assert cli.run(["lineart", str(folder), "--out", str(folder / "drawn")]) == 0
    shutil.rmtree(folder / "drawn/lines/cut")  # lineart has drawn these as well
    shutil.rmtree(folder / "drawn/sheets/cut")
    return folder


@pytest.mark.parametrize("kind", ["", "pictures:", "frames:"])
def test_results_of_other_commands_are_no_pictures(own, tmp_path, capsys, kind):
    words = ("--stride", 1, *ORIGIN, *ALL)
    assert prepare(f"{kind}{own}", "--out", tmp_path / "out", *words) == 0
    names = ["own/0", "deep/1"] if kind == "frames:" else ["0", "deep/1"]
    assert list(records(tmp_path / "out")) == names
    said = " ".join(capsys.readouterr().err.split())
    assert "not looked at, as results of `magiccolor segment`, `lineart` or `prepare`: " in said
    for name in ("cut/instances", "cut/overlays", "drawn/lines", "drawn/sheets"):
        assert f"own/{name}" in said
    # Nor are those of an earlier preparation, and what they hold is none of the inputs' contents.
    assert prepare(f"{kind}{own}", "--out", own / "first", *words) == 0
    assert prepare(f"{kind}{own}", "--out", own / "second", *words) == 0
    assert list(records(own / "second")) == names
    save(own / "cut/instances/0/7.png", block_mask((96, 160), 9, 9, 50, 60))
    assert prepare(f"{kind}{own}", "--out", own / "second", *words) == 0


def test_what_is_given_is_no_picture(own, tmp_path):
    (own / "cut/instances").rename(own / "masks")
    (own / "drawn/lines").rename(own / "sketches")
    shutil.rmtree(own / "cut")
    shutil.rmtree(own / "drawn")
    given = ("--masks", own / "masks", "--sketches", own / "sketches")
    assert prepare(own, "--out", tmp_path / "out", *ORIGIN, *ALL, *given) == 0
    assert list(records(tmp_path / "out")) == ["0", "deep/1"]
    assert not skipped(tmp_path / "out")


def test_an_input_may_be_below_what_is_given(own, tmp_path):
    given = ("--sketches", own)
    assert prepare(own / "deep", "--out", tmp_path / "out", *ORIGIN, *ALL, *given) == 1
    assert prepare(own / "deep/1.png", "--out", tmp_path / "o", *ORIGIN, *ALL) == 0
    assert list(records(tmp_path / "o")) == ["1"]


def test_pictures_that_are_results_may_be_named(own, tmp_path):
    shown = own / "cut/overlays"
    assert prepare(f"pictures:{shown}", "--out", tmp_path / "out", *ORIGIN, *ALL) == 0
    assert list(records(tmp_path / "out")) == ["0", "deep/1"]
