"""No picture of `magiccolor prepare` is trained on and held out at the same time."""

import json
import os
import shutil

import pytest
from oracles.case_folders import save
from oracles.drawn_clips import BLUE, GREEN, NIGHT, RED, VIOLET, frame, shot, write_video
from oracles.preparations import ALL, ORIGIN, prepare, skipped
from oracles.training_folders import write_training_case


def rows(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def write_frames(folder, count=4, shift=0):
    colors = (RED, GREEN, BLUE, VIOLET)
    for number in range(count):
        save(folder / f"{number}.png", frame([((30 + 20 * number, 40 + shift), colors[number])]))
    return folder


@pytest.mark.parametrize("first", ["pictures", "frames"])
def test_inputs_that_overlap(tmp_path, first):
    folder = write_frames(tmp_path / "in/ep1").parent
    inputs = [f"{kind}:{folder}" for kind in sorted(("pictures", "frames"), key=first.__ne__)]
    words = ("--held-out", 0.5, "--stride", 1)
    assert prepare(*inputs, "--out", tmp_path / "out", *ORIGIN, *words) == 1
    found = rows(tmp_path / "out")
    assert {row["kind"] for row in found} == {first}
    assert sorted(row["name"] for row in found) == [f"ep1/{number}" for number in range(4)]
    left = skipped(tmp_path / "out")
    assert len(left) == (1 if first == "pictures" else 4)
    assert all("a file is read once: expected one that no other" in why for why in left.values())
    if first == "pictures":
        assert "got 0.png, which ep1/0 reads too" in left["ep1"]


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_links_inside_of_folders_of_frames(tmp_path, link):
    folder = write_frames(tmp_path / "in/a")
    write_frames(tmp_path / "in/c", shift=20)
    (tmp_path / "in/b").mkdir()
    for path in folder.iterdir():
        link(path, tmp_path / "in/b" / path.name)
    words = ("--stride", 1)
    assert prepare(f"frames:{tmp_path / 'in'}", "--out", tmp_path / "o", *ORIGIN, *ALL, *words) == 1
    assert {row["clip"] for row in rows(tmp_path / "o")} == {"a", "c"}
    assert "b: a file is read once" in skipped(tmp_path / "o")["b"]


def test_a_folder_of_frames_below_another_is_a_clip_by_itself(tmp_path):
    folder = write_frames(tmp_path / "in")
    write_frames(folder / "below", shift=20)
    words = ("--stride", 1)
    assert prepare(f"frames:{folder}", "--out", tmp_path / "out", *ORIGIN, *ALL, *words) == 0
    assert {row["clip"] for row in rows(tmp_path / "out")} == {"in", "below"}


def test_cases_and_their_pictures(tmp_path):
    write_training_case(tmp_path / "in/a", 2)
    inputs = (f"cases:{tmp_path / 'in'}", f"pictures:{tmp_path / 'in'}")
    assert prepare(*inputs, "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    left = skipped(tmp_path / "out")
    assert "got the same as a" in left["a/target"] and "got the same as a" in left["a/sketch"]
    assert [row["name"] for row in rows(tmp_path / "out") if row["kind"] == "cases"] == ["a"]


def test_cases_may_share_a_mask(tmp_path):
    one, other = (
        write_training_case(tmp_path / "in/a", 2),
        write_training_case(tmp_path / "in/b", 2),
    )
    for path in (one / "sketch_masks").iterdir():
        shutil.copy(path, tmp_path / path.name)
        for case in (one, other):
            (case / "sketch_masks" / path.name).unlink()
            (case / "sketch_masks" / path.name).symlink_to(tmp_path / path.name)
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL) == 0
    assert [row["name"] for row in rows(tmp_path / "out")] == ["a", "b"]


def test_triplets_of_one_film_may_share_a_frame(tmp_path):
    drawn = shot(16)[::4]
    for number in (0, 1):
        folder = tmp_path / f"in/Film_00002{number}_s2"
        for place in (1, 2, 3):
            save(folder / f"frame{place}.png", drawn[min(number + place - 1, 3)])
    (folder / "frame1.png").unlink()
    (folder / "frame1.png").symlink_to(tmp_path / "in/Film_000020_s2/frame3.png")
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL) == 0
    assert {row["clip"] for row in rows(tmp_path / "out")} == {"Film"}


def test_shots_that_return_are_not_parted(tmp_path):
    """Shot and reverse shot."""
    one, other = frame([((40, 40), RED)]), frame([((90, 40), BLUE)], NIGHT)
    film = write_video(tmp_path / "film.mp4", ([one] * 6 + [other] * 6) * 8)
    words = ("--held-out", 0.5, "--stride", 4, "--split-by", "shot")
    assert prepare(film, "--out", tmp_path / "out", *ORIGIN, *words) == 0
    found = rows(tmp_path / "out")
    assert len(found) == 16 and {row["clip"] for row in found} == {"film/0001", "film/0002"}
    assert len({(row["clip"], row["split"]) for row in found}) == 2
