"""`magiccolor prepare` from the command line: every kind of input, and errors."""

import json
import os
import sys

import numpy as np
import pytest
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import (
    BLUE,
    GREEN,
    NIGHT,
    RED,
    frame,
    shot,
    write_film,
    write_pictures,
)
from oracles.preparations import ALL, ORIGIN, prepare, records, skipped, write_clips
from oracles.training_folders import write_picture_folder, write_training_case

from magiccolor_jax import cli


def color(picture, mask):
    return np.median(picture[mask > 0], axis=0)


def assert_references_correspond(scene, least=1):
    """Instances and their views have one colour, whatever their order."""
    assert sum(map(len, scene.views)) >= least
    for mask, views in zip(scene.masks, scene.views, strict=True):
        for view in views:
            assert np.abs(color(scene.target, mask) - color(view.picture, view.mask)).max() < 12


def test_pictures(tmp_path, capsys):
    out, folder = tmp_path / "out", write_pictures(tmp_path / "in", 5)
    assert prepare(folder, "--out", out, *ORIGIN, *ALL, "--source", "https://example.org") == 1
    found = records(out)
    assert list(found) == ["0", "1", "2", "3", "4"] and list(skipped(out)) == ["broken"]
    scene, origin = found["3"]
    assert origin == ("https://example.org", "A. Painter", "CC0-1.0", "")
    assert scene.target.shape == (96, 160, 3) and len(scene.masks) == 2
    assert {tuple(color(scene.target, mask)) for mask in scene.masks} == {RED, GREEN}
    assert scene.lines is not None and scene.lines.shape == scene.target.shape
    assert scene.views == ((), ())
    said = " ".join(capsys.readouterr().err.split())
    assert "the classical way" in said and "left out broken" in said and "pictures/s" in said
    assert "5 train, 0 held_out, 1 left out" in said


def test_a_film(tmp_path):
    out = tmp_path / "out"
    assert (
        prepare(write_film(tmp_path / "film.mp4"), "--out", out, *ORIGIN, *ALL, "--stride", 4) == 1
    )
    found = records(out)
    assert len(found) == 6 + 4
    for scene, origin in found.values():
        # Borders are cut off, to the pixel or as far as the codec lets its colours bleed.
        assert abs(scene.target.shape[0] - 72) <= 2 and scene.target.shape[1] == 160
        assert len(scene.masks) == 2 and all(scene.views)
        assert_references_correspond(scene, least=2)
        assert origin.source.endswith("film.mp4") and origin.note.startswith("frame at ")
    assert [len(views) for views in found["film/00000167"].scene.views] == [2, 2]
    ((name, reason),) = skipped(out).items()
    assert name == "film/0003.1" and "a frame shows something" in reason
    listed = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [row["name"] for row in listed] == list(found)
    assert {row["clip"] for row in listed} == {"film"} and listed[0]["kind"] == "video"


def test_frames_of_a_folder_are_a_clip(tmp_path):
    for number, pixels in enumerate([*shot(6), *shot(4, NIGHT)]):
        save(tmp_path / f"in/clip/{number}.png", pixels)
    words = ("--stride", 1, "--alike", 2)
    assert (
        prepare(f"frames:{tmp_path / 'in'}", "--out", tmp_path / "out", *ORIGIN, *ALL, *words) == 0
    )
    found = records(tmp_path / "out")
    assert list(found) == [f"clip/{number}" for number in (0, 2, 4, 6, 8)]
    for scene, _ in found.values():
        assert_references_correspond(scene, least=2)
    # The nearest frames of its own shot, and none of another.
    assert [len(views) for views in found["clip/2"].scene.views] == [2, 2]
    assert [len(views) for views in found["clip/6"].scene.views] == [1, 1]


def write_triplet(folder):
    for number, pixels in zip((1, 2, 3), shot(12)[::5], strict=True):
        save(folder / f"frame{number}.png", pixels)
    return folder


def test_triplets(tmp_path):
    name = "Film_v4_0_000024_s2"
    write_triplet(tmp_path / "in/train" / name)
    note = tmp_path / f"in/annotations/{name}/{name}.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"level": 1, "motion_RoI": {}, "general_motion_type": "translation"}')
    (tmp_path / "in/train/Film_v4_0_000025_s2").mkdir()
    save(tmp_path / "in/train/Film_v4_0_000025_s2/frame1.png", frame([]))
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    ((scene, origin),) = records(tmp_path / "out").values()
    np.testing.assert_array_equal(scene.target, shot(12)[10])
    assert origin.note == "level 1, general_motion_type translation"
    assert [len(views) for views in scene.views] == [1, 1]
    assert_references_correspond(scene, least=2)
    (reason,) = skipped(tmp_path / "out").values()
    assert "a triplet has a first and a third frame" in reason
    rows = (tmp_path / "out/records.jsonl").read_text()
    assert json.loads(rows)["clip"] == "Film_v4_0"


@pytest.mark.parametrize("kind", ["pairs", "pairs-left"])
def test_pairs(tmp_path, kind):
    colored = frame([((40, 48), RED), ((110, 48), BLUE)])
    sketch = np.where(frame([((40, 48), (0, 0, 0))]) < 9, 0, 255).astype(np.uint8)
    save(tmp_path / "in/a.png", np.hstack([sketch, colored]))
    save(tmp_path / "in/odd.png", np.zeros((10, 21, 3), np.uint8))
    assert prepare(f"{kind}:{tmp_path / 'in'}", "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    ((scene, _),) = records(tmp_path / "out").values()
    np.testing.assert_array_equal(scene.target, colored)
    np.testing.assert_array_equal(scene.lines, sketch)
    assert len(scene.masks) == 2
    assert "expected an even width" in skipped(tmp_path / "out")["odd"]


def test_coco(tmp_path):
    picture = frame([((40, 48), RED), ((110, 48), BLUE)])
    save(tmp_path / "images/a.png", picture)
    box = [[26, 34, 55, 34, 55, 63, 26, 63]]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": box}]
    licence = {"id": 3, "url": "http://creativecommons.org/licenses/by/2.0/"}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "license": 3}],
        "annotations": rows,
        "categories": [{"id": 1}],
        "licenses": [licence],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    words = ("--out", tmp_path / "out", "--author", "A", *ALL)
    assert prepare(tmp_path / "instances.json", *words) == 0
    ((scene, origin),) = records(tmp_path / "out").values()
    assert origin.licence == "CC-BY-2.0" and len(scene.masks) == 1
    assert tuple(color(scene.target, scene.masks[0])) == RED
    found = json.loads((tmp_path / "out/statistics.json").read_text())
    assert found["train"]["records_by_masks"] == {"given": 1}


def test_cases_and_training_folders(tmp_path):
    write_training_case(tmp_path / "cases/a", 2)
    write_picture_folder(tmp_path / "release/b", count=3, views=(2,))
    inputs = (tmp_path / "cases", f"release:{tmp_path / 'release'}")
    assert prepare(*inputs, "--out", tmp_path / "out", *ORIGIN, *ALL) == 0
    found = records(tmp_path / "out")
    assert [len(scene.masks) for scene, _ in found.values()] == [2, 3]
    assert [len(views) for views in found["a"].scene.views] == [1, 1]
    assert [len(views) for views in found["b"].scene.views] == [0, 1, 0]
    given, drawn = (found[name].scene.lines for name in "ab")
    assert given is not None and given.min() == 255 and drawn is not None and drawn.min() < 255


def test_credits_of_nothing_are_told(tmp_path, capsys):
    folder = write_pictures(tmp_path / "in", 2)
    (tmp_path / "credits.json").write_text('{"1.png": {"author": "B"}, "0": {"author": "C"}}')
    words = ("--credits", tmp_path / "credits.json")
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL, *words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "credits.json: of nothing in the inputs: 1.png; a name has no suffix" in said
    assert [found.provenance.author for found in records(tmp_path / "out").values()] == [
        *("C", "A. Painter")
    ]


def test_masks_and_sketches_that_are_given(tmp_path):
    folder = write_pictures(tmp_path / "in", 3)
    mask = np.zeros((96, 160), np.uint8)
    mask[10:40, 10:60] = 255
    save(tmp_path / "masks/1/1.png", mask)
    save(tmp_path / "masks/2/1.png", mask[:50])
    sketch = np.full((96, 160, 3), 255, np.uint8)
    sketch[50] = 0
    save(tmp_path / "lines/0.png", sketch)
    save(tmp_path / "lines/2.png", sketch)
    given = ("--masks", tmp_path / "masks", "--sketches", tmp_path / "lines")
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL, *given) == 1
    found = records(tmp_path / "out")
    np.testing.assert_array_equal(found["1"].scene.masks, [mask])
    assert len(found["0"].scene.masks) == 2
    np.testing.assert_array_equal(found["0"].scene.lines, sketch)
    assert "a mask has the size of its picture" in skipped(tmp_path / "out")["2"]


def test_a_sketch_may_end_in_capitals(tmp_path):
    folder, lines = write_pictures(tmp_path / "in", 1), np.full((96, 160, 3), 255, np.uint8)
    lines[50] = 0
    save(tmp_path / "lines/0.PNG", lines)
    given = ("--sketches", tmp_path / "lines")
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL, *given) == 1
    np.testing.assert_array_equal(records(tmp_path / "out")["0"].scene.lines, lines)


def test_names_that_are_no_text(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    strange = os.fsencode(folder) + b"/\xff.png"
    os.rename(folder / "1.png", strange)
    assert prepare(folder, "--out", tmp_path / "out", *ORIGIN, *ALL) == 1
    assert list(records(tmp_path / "out")) == ["0"]
    reason = skipped(tmp_path / "out")["\udcff"]
    assert "a record's name and origin are Unicode" in reason and "rename the file" in reason


def test_frames_of_one_name(tmp_path, capsys):
    for suffix in ("png", "jpg"):
        save(tmp_path / f"in/clip/0.{suffix}", frame([]))
    assert prepare(f"frames:{tmp_path / 'in'}", "--out", tmp_path / "out", *ORIGIN) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "expected one picture called 0.*, got 0.jpg and 0.png" in said


def test_masks_part_at_the_higher_id(tmp_path):
    save(tmp_path / "in/a.png", frame([((40, 48), RED)]))
    large, small = np.zeros((2, 96, 160), np.uint8)
    large[10:60, 10:90] = small[20:30, 20:40] = 255
    for number, mask in enumerate((small, large, small), 1):
        save(tmp_path / f"masks/a/{number}.png", mask)
    given = ("--masks", tmp_path / "masks")
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL, *given) == 0
    ((scene, _),) = records(tmp_path / "out").values()
    np.testing.assert_array_equal(scene.masks, [large - small, small])


def test_the_other_commands_results_are_taken(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    (folder / "broken.png").unlink()
    assert cli.run(["segment", str(folder), "--out", str(tmp_path / "cut")]) == 0
    assert cli.run(["lineart", str(folder), "--out", str(tmp_path / "drawn")]) == 0
    given = ("--masks", tmp_path / "cut/instances", "--sketches", tmp_path / "drawn/lines")
    assert prepare(folder, "--out", tmp_path / "given", *ORIGIN, *ALL, *given) == 0
    assert prepare(folder, "--out", tmp_path / "own", *ORIGIN, *ALL) == 0
    both = [list(records(tmp_path / name).values()) for name in ("given", "own")]
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one.scene.masks, other.scene.masks)
        np.testing.assert_array_equal(one.scene.lines, other.scene.lines)


def test_large_pictures_are_shrunk(tmp_path):
    save(tmp_path / "in/a.png", frame([((450, 300), RED)], shape=(600, 900), radius=90))
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL, "--side", 450) == 0
    ((scene, _),) = records(tmp_path / "out").values()
    assert scene.lines is not None and scene.lines.min() < 100
    assert scene.target.shape == scene.lines.shape == (300, 450, 3)
    assert scene.masks[0].shape == (300, 450)


def test_a_speck_that_vanishes_is_no_instance(tmp_path):
    folder = write_picture_folder(tmp_path / "in/a", count=0, views=(1, 2))
    save(folder / "a.png", frame([((150, 90), RED)], shape=(200, 300), radius=50))
    save(folder / "masks/mask_1.png", block_mask((200, 300), 7, 7, 7, 7))
    save(folder / "masks/mask_2.png", block_mask((200, 300), 40, 100, 140, 200))
    assert prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL, "--side", 64) == 0
    ((scene, _),) = records(tmp_path / "out").values()
    assert len(scene.masks) == 1 and [len(views) for views in scene.views] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no input: expected KIND:PATH or PATH, with one of pictures, video, frames"),
        (("nowhere",), "nowhere: a source is a folder"),
        (("pictures:nowhere",), "nowhere: a source is a folder"),
        (("picture:nowhere",), "expected KIND:PATH with one of pictures, video, .* did you mean"),
        (("{empty}",), "an input's names tell what it is: .* got nothing; say which: KIND:"),
        (("video:{in}",), "an input has something: expected files that end in .avi,"),
        (("pictures:{empty}",), "no pictures: expected pictures, or folders of them"),
        (("triplets:{in}",), "a source has scenes: expected folders with frame1"),
        (("{wide}",), "got pictures twice as wide as high, which may be pairs; say which"),
        (("{both}",), "got pictures and video; say which"),
        (("{in}", "{in}"), "expected each name once, got 0, 1"),
        (("{in}", "--licence", ""), "expected an SPDX id .* got none for 3 of 3.* give --licence"),
        (("{in}", "--licence", "unknown"), "got 'unknown' for 3 of 3"),
        (("{in}", "--author", ""), "expected an author, got none for 3 of 3.* give --author"),
        (("{in}", "--side", "8"), "--side: expected at least 64 pixels, got 8"),
        (("{in}", "--held-out", "1"), "--held-out: expected a share in"),
        (("{in}", "--stride", "0"), "--stride, --cut, --alike: expected a stride of at least 1"),
        (("{in}", "--workers", "0"), "--workers: expected at least 1"),
        (("{in}", "--masks", "nowhere"), "--masks nowhere: expected a folder"),
        (("{in}", "--model", "{in}"), "config.json"),
        (("{in}", "--dinov2", "{in}"), "config.json"),
        (("{in}", "--method", "anime2sketch"), "expected --model netG.pth"),
        (("{in}", "--out", "{in}"), "expected a new folder, or one of an earlier"),
        (
            ("{in}", "--masks", "{in}"),
            "in: what is given is called after its picture: .* NAME/1.png",
        ),
        (("{in}", "--sketches", "{both}/.."), "expected NAME.png for a NAME of 0, 1, broken, got"),
        (("{in}", "--out", "{in}/0.png/x"), "0.png/x: results are written there: expected a fold"),
        (("{white}",), "expected at least one picture that can be prepared, got 1 that cannot"),
        (("{in}/0.png", "--credits", "{in}/0.png"), "0.png"),
    ],
)
def test_errors(tmp_path, capsys, words, message):
    import re

    write_pictures(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "wide/a.png", np.zeros((10, 20, 3), np.uint8))
    save(tmp_path / "white/a.png", np.full((50, 60, 3), 255, np.uint8))
    write_pictures(tmp_path / "both", 1)
    (tmp_path / "both/a.mp4").write_bytes(b"")
    names = {path.name: path for path in tmp_path.iterdir()}
    given = [word.format(**names) for word in words]
    defaults = ("--out", tmp_path / "out", *ORIGIN)
    pairs = zip(defaults[::2], defaults[1::2], strict=True)
    missing = [word for pair in pairs if pair[0] not in given for word in pair]
    assert prepare(*given, *missing) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message.replace("[", r"\["), said), said
    assert "Traceback" not in said


def test_without_av(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert prepare(tmp_path, "--out", tmp_path / "out", *ORIGIN) == 1
    assert "pip install 'magiccolor_jax[video]'" in " ".join(capsys.readouterr().err.split())


def test_networks(tmp_path, capsys):
    """SAM, DINOv2 and a line extractor of test size: what they find means nothing."""
    from seeded_network import seeded_network

    from converters import maps
    from magiccolor_jax.checkpoint import ModelConfig, save_network, write_config
    from magiccolor_jax.encoders.dinov2 import DINOv2
    from magiccolor_jax.encoders.dinov2_config import DINOv2Config
    from magiccolor_jax.lineart.anime2sketch import Anime2Sketch, Anime2SketchConfig
    from magiccolor_jax.segment.sam import SAM
    from magiccolor_jax.segment.sam_config import SAMConfig

    networks = {
        "sam": (SAM, SAMConfig.nano(), maps.SAM),
        "dinov2": (DINOv2, DINOv2Config.nano(), maps.DINOV2),
        "anime2sketch": (Anime2Sketch, Anime2SketchConfig.nano(), maps.ANIME2SKETCH),
    }
    for name, (kind, size, weights) in networks.items():
        save_network(
            tmp_path / "model" / f"{name}.safetensors", seeded_network(kind, size, weights)
        )
    sizes = {name: size for name, (_, size, _) in networks.items()}
    write_config(tmp_path / "model", ModelConfig(networks=sizes))
    for number in (1, 2, 3):
        save(tmp_path / f"in/a/frame{number}.png", shot(12)[number])
    model = tmp_path / "model"
    words = ("--model", model, "--dinov2", model, "--line-model", model, "--points-per-side", 4)
    loose = ("--pred-iou-thresh", 0, "--stability-score-thresh", 0, "--min-area", 0.001)
    cache = ("--compilation-cache", tmp_path / "compiled")
    assert (
        prepare(tmp_path / "in", "--out", tmp_path / "out", *ORIGIN, *ALL, *words, *loose, *cache)
        == 0
    )
    said = " ".join(capsys.readouterr().err.split())
    assert "instances by SAM on cpu; found again by DINOv2 and boxes on cpu" in said
    assert "sketches by anime2sketch" in said
    (row,) = map(json.loads, (tmp_path / "out/records.jsonl").read_text().splitlines())
    assert row["how"] == "SAM" and sum(row["references"]) >= 1
    ours = json.loads((tmp_path / "out/prepare.json").read_text())["made_by"]
    assert ours["model"] == ours["dinov2"] == ours["line_model"] and len(ours["model"]) == 64


@pytest.mark.slow
@pytest.mark.usefixtures("compile_quickly")
@pytest.mark.parametrize("second", [False, True], ids=["stage1", "stage2"])
def test_a_training_step(tmp_path, second):
    from dataclasses import replace

    from oracles.runs import cheap_run, losses_of, small_stage, write_start
    from rich.console import Console

    from magiccolor_jax.data.loader import DataConfig
    from magiccolor_jax.losses.objective import LossConfig
    from magiccolor_jax.training.loop import Training
    from magiccolor_jax.training.setup import plan_training

    folder, out = write_clips(tmp_path / "in", 4), tmp_path / "out"
    words = (*ORIGIN, "--stride", 4, "--held-out", 0.4, "--seed", 2)
    assert prepare(folder, "--out", out, *words) == 0
    data = DataConfig(sources=(f"records:{out}/train",), validation=(f"records:{out}/held_out",))
    write_start(tmp_path / "start")
    stage = replace(small_stage(second), losses=LossConfig(perceptual=0.0, color=0.0))
    config = cheap_run(tmp_path, data=data, stage=stage, steps=1)
    assert Training(plan_training(config), Console(stderr=True)).run() == 0
    ((step, loss),) = losses_of(tmp_path / "run")
    assert step == 1 and np.isfinite(loss)
