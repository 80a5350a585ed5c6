"""What `magiccolor prepare` takes for an input, where other things stand beside the pictures."""

import errno
import json
import shutil

import numpy as np
import pytest
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import RED, frame, shot, write_pictures
from oracles.preparations import ALL, ORIGIN, prepare, records, skipped

from magiccolor_jax import cli
from magiccolor_jax.prepare import chunks, inputs, preparing, reels


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


@pytest.mark.parametrize("kind", ["pictures", "given"])
def test_a_disk_that_was_unplugged(tmp_path, monkeypatch, capsys, kind):
    """Nothing is left out for it, and the same command goes on when it is back."""
    folder = write_pictures(tmp_path / "pictures", 8)
    for number in range(8):
        mask = block_mask((96, 160), 9, 9, 50, 60 + number)
        save(tmp_path / f"given/{number}/1.png", mask)
    masks = ("--masks", tmp_path / "given")
    words = (folder, *ORIGIN, *ALL, *masks, "--records-per-shard", 2, "--workers", 1)
    assert prepare(*words, "--out", tmp_path / "whole") == 1
    written, real = [], chunks.write_shard

    def write(*args):
        real(*args)
        written.append(args)
        if len(written) == 2:
            (tmp_path / kind).rename(tmp_path / "elsewhere")

    monkeypatch.setattr(chunks, "write_shard", write)
    capsys.readouterr()
    assert prepare(*words, "--out", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the same command goes on" in said and "put it back" in said and "left out" not in said
    (tmp_path / "elsewhere").rename(tmp_path / kind)
    assert prepare(*words, "--out", tmp_path / "out") == 1
    assert list(skipped(tmp_path / "out")) == ["broken"]
    for path in (tmp_path / "whole").rglob("*.array_record"):
        assert path.read_bytes() == (tmp_path / "out/train" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error"), "got Input/output error; mend that"),
        (OSError(errno.EMFILE, "Too many open files"), "got Too many open files; mend that"),
        (MemoryError(), "got too little memory; mend that"),
    ],
    ids=["EIO", "EMFILE", "memory"],
)
@pytest.mark.parametrize("kind", ["pictures", "frames"])
def test_errors_that_pass(tmp_path, monkeypatch, capsys, kind, error, message):
    folder = write_pictures(tmp_path / "in", 3)
    words = (f"{kind}:{folder}", *ORIGIN, *ALL, "--stride", 1, "--out", tmp_path / "out")

    def fail(path, *args):
        try:
            raise error
        except OSError as cause:
            raise inputs.CaseError(path, "a file can be read", "one", "none", "none") from cause

    monkeypatch.setattr(reels if kind == "frames" else inputs, "read_picture", fail)
    assert prepare(*words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and "the same command goes on" in said
    monkeypatch.undo()
    assert prepare(*words) == 1
    assert len(records(tmp_path / "out")) == 3
    assert [name.removeprefix("in/") for name in skipped(tmp_path / "out")] == ["broken"]


def test_a_file_that_may_not_be_read_is_bad(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "in", 2)

    def refuse(path, *args):
        if path.name == "1.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args)

    real = inputs.read_picture
    monkeypatch.setattr(inputs, "read_picture", refuse)
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    assert list(skipped(tmp_path / "out")) == ["1", "broken"]


def test_a_black_frame_among_frames_of_several_sizes(tmp_path):
    for number, pixels in enumerate(shot(8)[::2]):
        save(tmp_path / f"in/mix/{number}.png", pixels)
    save(tmp_path / "in/mix/2b.png", np.zeros((60, 70, 3), np.uint8))
    save(tmp_path / "in/mix/9.png", frame([((30, 30), RED)], shape=(80, 90)))
    words = ("--stride", 1, "--cut", 255, *ORIGIN, *ALL)
    assert prepare(f"frames:{tmp_path / 'in'}", "--out", tmp_path / "out", *words) == 1
    found = records(tmp_path / "out")
    assert list(found) == [f"mix/{name}" for name in "01239"]
    assert [len(views) for views in found["mix/2"].scene.views] == [2, 2]
    ((name, reason),) = skipped(tmp_path / "out").items()
    assert name == "mix/2b" and "a frame shows something" in reason


def test_a_link_that_leads_to_itself(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    (folder / "b.png").symlink_to("b.png")
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    assert list(records(tmp_path / "out")) == ["0", "1"]
    assert list(skipped(tmp_path / "out")) == ["b", "broken"]


def begin(monkeypatch, *words):
    """A run that dies when its shards are made."""

    def dying(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "publish", dying)
    assert prepare(*words) == 130
    monkeypatch.undo()


def test_panoptic_masks_are_not_mixed(tmp_path, monkeypatch, capsys):
    save(tmp_path / "val/a.png", frame([((40, 40), RED)]))
    ids = np.zeros((96, 160, 3), np.uint8)
    ids[9:50, 9:60] = (4, 0, 0)
    save(tmp_path / "panoptic_val/a.png", ids)
    segments = [{"id": 4, "category_id": 1}]
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1}],
    }
    (tmp_path / "panoptic_val.json").write_text(json.dumps(content))
    words = (tmp_path / "panoptic_val.json", "--out", tmp_path / "out", *ORIGIN, *ALL)
    begin(monkeypatch, *words)
    ids[20:30:3, 80:120:7] = (4, 0, 0)
    save(tmp_path / "panoptic_val/a.png", ids)
    assert prepare(*words) == 1
    assert "other files in the inputs" in " ".join(capsys.readouterr().err.split())


def test_annotations_of_triplets_are_not_mixed(tmp_path, monkeypatch, capsys):
    for number, pixels in zip((1, 2, 3), shot(12)[::5], strict=True):
        save(tmp_path / f"in/Film_000024_s2/frame{number}.png", pixels)
    note = tmp_path / "in/notes/Film_000024_s2.json"
    note.parent.mkdir()
    note.write_text('{"level": 1}')
    # What stands in the results is none of them.
    words = (tmp_path / "in", "--out", tmp_path / "in/out", *ORIGIN, *ALL)
    begin(monkeypatch, *words)
    note.write_text('{"level": 1, "kind": "pan"}')
    assert prepare(*words) == 1
    assert "other files in the inputs" in " ".join(capsys.readouterr().err.split())
    note.write_text('{"level": 1}')
    assert prepare(*words) == 0
