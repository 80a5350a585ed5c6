"""`magiccolor prepare` as a run: splits, kills, what is gone on with, and with what it is not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import prepare_once
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import (
    NIGHT,
    shot,
    write_film,
    write_pictures,
    write_video,
)
from oracles.preparations import ALL, ORIGIN, prepare, records, skipped, write_clips
from oracles.training import SMALL_SIZES

from magiccolor_jax.data import shards
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.prepare import preparing
from magiccolor_jax.prepare.chunks import split_of
from magiccolor_jax.recipe import Recipe


def test_no_clip_is_in_both_splits(tmp_path):
    folder = write_clips(tmp_path / "in", 6)
    words = (*ORIGIN, "--stride", 4, "--held-out", 0.4, "--seed", 2)
    assert prepare(folder, "--out", tmp_path / "out", *words) == 0
    clips = [
        {name.split("/")[0] for name in records(tmp_path / "out", s)} for s in ("train", "held_out")
    ]
    assert all(clips) and not clips[0] & clips[1] and len(clips[0] | clips[1]) == 6
    # A clip stays where it is, whatever stands beside it.
    (folder / "clip0.mp4").unlink()
    assert prepare(folder, "--out", tmp_path / "less", *words) == 0
    less = [
        {name.split("/")[0] for name in records(tmp_path / "less", s)}
        for s in ("train", "held_out")
    ]
    assert less == [names - {"clip0"} for names in clips]


def test_a_film_may_be_split_by_its_shots(tmp_path, capsys):
    # No two of them are alike.
    grounds = [(each[0] - 12 * n, *each[1:]) for n in range(6) for each in ((255, 252, 240), NIGHT)]
    film = write_video(tmp_path / "film.mp4", sum((shot(8, each) for each in grounds), []))
    words = (*ORIGIN, "--stride", 4, "--held-out", 0.4)
    assert prepare(film, "--out", tmp_path / "whole", *words) == 0
    assert "none of 1 clips is held out" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "whole/train").exists() or not (tmp_path / "whole/held_out").exists()
    assert prepare(film, "--out", tmp_path / "out", *words, "--split-by", "shot") == 0
    rows = [json.loads(line) for line in (tmp_path / "out/records.jsonl").read_text().splitlines()]
    splits = {}
    for row in rows:
        splits.setdefault(row["clip"], set()).add(row["split"])
    assert len(splits) == 12 and all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "held_out"}


def test_the_hash_holds_out_its_share():
    held = [split_of(f"clip {number}", 0.1, 0) == "held_out" for number in range(5000)]
    assert 0.08 < np.mean(held) < 0.12
    other = [split_of(f"clip {number}", 0.1, 1) == "held_out" for number in range(5000)]
    assert held != other
    more = [split_of(f"clip {number}", 0.2, 0) == "held_out" for number in range(5000)]
    assert all(larger for one, larger in zip(held, more, strict=True) if one)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Inputs of several kinds, and the words that prepare them in many small shards."""
    folder = tmp_path_factory.mktemp("mixed")
    write_pictures(folder / "pictures", 6)
    write_film(folder / "films/film.mp4")
    (folder / "films/bad.mp4").write_bytes(b"no film")
    words = ("--records-per-shard", 3, "--stride", 4, "--held-out", 0.4)
    return (folder / "pictures", folder / "films", *ORIGIN, *words)


@pytest.fixture(scope="module")
def whole(mixed, tmp_path_factory):
    """What an uninterrupted run makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prepare(*mixed, "--out", out, "--workers", 1) == 1
    return out


def contents(out):
    paths = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_what_a_run_leaves(whole):
    assert {path.name for path in whole.iterdir()} == {
        *(".lock", "train", "held_out", "sample", "index.html", "prepare.json"),
        *("records.jsonl", "skipped.json", "statistics.json"),
    }
    assert list(skipped(whole)) == ["bad", "broken", "film/0003.1"]
    found = json.loads((whole / "statistics.json").read_text())
    held, kept = records(whole, "held_out"), records(whole)
    assert (found["train"]["records"], found["held_out"]["records"]) == (len(kept), len(held))
    assert found["records"] == 16 and found["skipped"] == 3 and held
    assert found["train"]["instances"] == sum(len(each.scene.masks) for each in kept.values())
    page = (whole / "index.html").read_text()
    assert all(name in page for name in (*kept, *held)) and "CC0-1.0" in page
    shown = {path.name for path in (whole / "sample").iterdir()}
    assert len(shown) > 4 * 16 and all(f"sample/{name}" in page for name in shown)


@pytest.mark.parametrize("instances", [1, 16], ids=["stage1", "stage2"])
def test_training_makes_samples_of_them(whole, instances):
    """The colours of a reference's patches are those of its instance on the page."""
    split = "train" if split_of("film", 0.4, 0) == "train" else "held_out"
    source = open_source(f"records:{whole}/{split}")
    maker = Maker(Play.off(), Recipe.paper(), SMALL_SIZES, instances=instances)
    films = [n for n in range(len(source)) if source[n].name.startswith("film/")]
    for number in films:
        sample = maker(source[number], np.random.default_rng(0))
        assert sample.target.shape[1:3] == maker.shape_of(source.outline(number)).page
        owner = sample.case.instance_map[0]
        assert sample.case.valid.sum() == owner.max() == min(instances, 2)
        for index in range(owner.max() if instances > 1 else 0):
            told = sample.colors[0, index][sample.counts[0, index]]
            shown = sample.target[0][owner == index + 1]
            np.testing.assert_allclose(np.median(told, 0), np.median(shown, 0), atol=0.15)


def test_the_number_of_workers_changes_nothing(mixed, whole, tmp_path):
    assert prepare(*mixed, "--out", tmp_path / "out", "--workers", 3) == 1
    assert contents(tmp_path / "out") == contents(whole)


def test_a_run_that_was_killed_goes_on_to_the_same_result(mixed, whole, tmp_path):
    points = list(prepare_once.PLACES)
    words = [sys.executable, prepare_once.__file__, tmp_path, *points, "--", *mixed]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for point in points:
        out = tmp_path / point
        assert (out / "work").exists() == (point != "finished")
        if point == "in_shard":
            assert list((out / "work").glob(".*.tmp")) and len(list(out.glob("work/*.json"))) == 1
        assert prepare(*mixed, "--out", out) == 1
        assert contents(out) == contents(whole), point


def test_what_is_finished_is_kept(mixed, whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != ".lock"}
    assert prepare(*mixed, "--out", whole) == 1
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "3 left out" in " ".join(capsys.readouterr().err.split())
    assert prepare(*mixed, "--out", whole, "--side", 100) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "side: 1024 then, 100 now; run that command, or choose another --out" in said


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("pictures", "in/2.png"),
        ("frames", "in/2.png"),
        ("pictures", "masks/0/2.png"),
        ("pictures", "lines/1.png"),
    ],
)
def test_other_files_are_not_mixed_in(tmp_path, capsys, kind, changed):
    folder = write_pictures(tmp_path / "in", 2)
    clip = "in" if kind == "frames" else ""
    mask, lines = block_mask((96, 160), 9, 9, 50, 60), np.full((96, 160, 3), 255, np.uint8)
    save(tmp_path / "masks" / clip / "0/1.png", mask)
    save(tmp_path / "lines" / clip / "0.png", lines)
    words = (f"{kind}:{folder}", "--out", tmp_path / "out", *ORIGIN, "--stride", 1)
    given = ("--masks", tmp_path / "masks", "--sketches", tmp_path / "lines")
    assert prepare(*words, *given) == 1
    save(tmp_path / changed, mask)
    assert prepare(*words, *given) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "got other files in the inputs, --masks or --sketches now; run that command" in said


def test_a_file_is_read_once(tmp_path):
    """Under two names it could be in both splits."""
    deep = write_pictures(tmp_path / "in/deep", 2)
    (deep / "broken.png").unlink()
    (deep / "link.png").symlink_to(deep / "1.png")
    assert prepare(tmp_path / "in", deep, "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    assert list(records(tmp_path / "out")) == ["deep/0", "deep/1"]
    left = skipped(tmp_path / "out")
    assert list(left) == ["deep/link", "0", "1", "link"]
    assert "link.png: a file is read once: expected one that no other" in left["deep/link"]
    assert "got the same as deep/0" in left["0"]


def test_a_run_that_was_killed_as_it_began(tmp_path):
    folder, out = write_pictures(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / f".{preparing.JOB}.abc.tmp").touch()
    assert prepare(folder, "--out", out, *ORIGIN, *ALL) == 1
    assert list(records(out)) == ["0", "1"] and not list(out.glob("*.tmp"))


def test_what_was_finished_and_removed_is_told(tmp_path, capsys):
    folder, out = write_pictures(tmp_path / "in", 2), tmp_path / "out"
    assert prepare(folder, "--out", out, *ORIGIN, *ALL) == 1
    (out / "train").rename(tmp_path / "elsewhere")
    assert prepare(folder, "--out", out, *ORIGIN, *ALL) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "what was finished is kept: expected statistics.json, index.html, train, got no" in said


def test_results_below_the_inputs_are_no_inputs(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    assert prepare(folder, "--out", folder / "out", *ORIGIN) == 1
    assert prepare(folder, "--out", folder / "out", *ORIGIN) == 1
    assert json.loads((folder / "out/statistics.json").read_text())["records"] == 2


def test_a_full_disk_stops_the_run(tmp_path, monkeypatch, capsys):
    class Full:
        def __init__(self, *args):
            Path(args[0]).touch()

        def write(self, data):
            raise RuntimeError("write() failed: No space left on device")

    folder = write_pictures(tmp_path / "in", 2)
    monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", Full)
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN) == 1
    assert "the disk is full; make room, the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *()) == 1
    assert len(records(tmp_path / "out")) + len(records(tmp_path / "out", "held_out")) == 2


def test_a_damaged_shard_is_made_again_and_rests_are_removed(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "in", 4)
    words = (folder, *ORIGIN, *ALL, "--records-per-shard", 2)

    def dying(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "publish", dying)
    assert prepare(*words, "--out", tmp_path / "out") == 130
    monkeypatch.undo()
    shard = tmp_path / "out" / preparing.WORK / "train-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-100])
    rest = tmp_path / "out/sample/.train-000000-0.jpg.abc.tmp"
    rest.parent.mkdir()
    rest.touch()
    assert prepare(*words, "--out", tmp_path / "out") == 1
    assert list(records(tmp_path / "out")) == ["0", "1", "2", "3"] and not rest.exists()
