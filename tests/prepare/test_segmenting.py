"""`magiccolor segment` from the command line: masks, COCO, overlays, prompts, errors."""

import json

import cv2
import numpy as np
import pytest
from oracles.case_folders import save, save_both
from PIL import Image
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax import cli
from magiccolor_jax.checkpoint import ModelConfig, save_network, write_config
from magiccolor_jax.data import rle
from magiccolor_jax.segment.sam import SAM
from magiccolor_jax.segment.sam_config import SAMConfig


def drawn():
    """Three discs on white."""
    picture = np.full((120, 160, 3), 255, np.uint8)
    for x, y, radius, color in ((40, 60, 25, (200, 40, 40)), (110, 40, 20, (40, 60, 200))):
        cv2.circle(picture, (x, y), radius, color, -1)
    cv2.circle(picture, (120, 95), 3, (0, 0, 0), -1)
    return picture


@pytest.fixture
def pictures(tmp_path):
    return save_both(tmp_path / "in", drawn())


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("sam"), SAMConfig.nano()
    save_network(folder / "sam.safetensors", seeded_network(SAM, config, maps.SAM))
    write_config(folder, ModelConfig(networks={"sam": config}))
    return folder


def cut(*words):
    return cli.run(["segment", *map(str, words)])


def masks(folder):
    paths = sorted(folder.glob("*.png"))
    return [np.asarray(Image.open(path)) for path in paths]


def test_pictures_are_cut_without_a_model(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    found = masks(out / "instances/one")
    assert len(found) == 2 and set(np.unique(found)) == {0, 255}
    colors = [tuple(np.median(drawn()[mask > 0], axis=0)) for mask in found]
    assert colors == [(200, 40, 40), (40, 60, 200)]
    assert len(masks(out / "instances/deep/two")) == 2
    shown = np.asarray(Image.open(out / "overlays/deep/two.png"))
    assert shown.shape == (120, 160, 3) and np.any(shown != drawn()[:, ::-1])
    said = capsys.readouterr().err
    assert "the classical way" in said and "one: 2 by the plain ground" in said


def test_coco_has_the_masks(pictures, tmp_path):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    coco = json.loads((out / "coco.json").read_text())
    assert [image["id"] for image in coco["images"]] == [1, 2]
    assert len(coco["annotations"]) == 4 and coco["categories"]
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    (first, *_) = [a for a in coco["annotations"] if names[a["image_id"]].endswith("one.png")]
    mask = rle.decode(first["segmentation"])
    np.testing.assert_array_equal(mask, masks(out / "instances/one")[0] > 0)
    left, top, width, height = first["bbox"]
    assert first["area"] == mask.sum() == mask[top : top + height, left : left + width].sum()
    assert mask[:, left].any() and mask[top].any() and not mask[:, left - 1].any()


def test_what_is_cut_is_not_cut_again(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    record = out / "instances/one/instances.json"
    before = record.stat().st_mtime_ns
    (pictures / "three.png").write_bytes(b"no picture")
    assert cut(pictures, "--out", out) == 1
    assert "failed three" in capsys.readouterr().err and record.stat().st_mtime_ns == before
    assert cut(pictures, "--out", out, "--max-count", 1) == 1
    assert len(masks(out / "instances/one")) == 1
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 2


def test_its_own_output_is_no_input(pictures, capsys):
    assert cut(pictures, "--out", pictures / "cut") == 0
    assert cut(pictures, "--out", pictures / "cut") == 0
    assert "2 pictures" in capsys.readouterr().err


def test_sam_answers_prompts_in_their_order(pictures, sam, tmp_path):
    one = pictures / "one.png"
    words = ("--points", "40,60", "110,40", "--boxes", "10,30,70,90")
    assert cut(one, "--out", tmp_path / "words", "--model", sam, *words) == 0
    entries = [
        {"points": [[40, 60]]},
        {"points": [[110, 40]], "labels": [1]},
        {"box": [10, 30, 70, 90]},
    ]
    (tmp_path / "prompts.json").write_text(json.dumps({"one.png": entries}))
    words = ("--prompts", tmp_path / "prompts.json")
    assert cut(one, "--out", tmp_path / "file", "--model", sam, *words) == 0
    both = [masks(tmp_path / name / "instances/one") for name in ("words", "file")]
    assert len(both[0]) == 3
    np.testing.assert_array_equal(both[0], both[1])
    swapped = {"one": [entries[1], entries[0]]}
    (tmp_path / "prompts.json").write_text(json.dumps(swapped))
    assert cut(one, "--out", tmp_path / "file", "--model", sam, *words) == 0
    np.testing.assert_array_equal(masks(tmp_path / "file/instances/one"), both[0][1::-1])


def test_a_prompt_is_answered_whatever_others_ask(pictures, sam, tmp_path):
    entries = [
        {"points": [[40, 60]]},
        {"points": [[40, 60], [110, 40]], "labels": [1, 0]},
        {"box": [10, 30, 70, 90]},
        {"box": [10, 30, 70, 90], "points": [[40, 60]]},
    ]
    rows = {"together": entries} | {f"{i}": [entry] for i, entry in enumerate(entries)}
    found = {}
    for name, row in rows.items():
        (tmp_path / "prompts.json").write_text(json.dumps({"one": row}))
        words = ("--model", sam, "--prompts", tmp_path / "prompts.json")
        assert cut(pictures / "one.png", "--out", tmp_path / name, *words) == 0
        found[name] = masks(tmp_path / name / "instances/one")
    for index in range(len(entries)):
        np.testing.assert_array_equal(found["together"][index], found[f"{index}"][0])


def test_what_a_person_changed_is_kept(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert cut(pictures, "--out", out) == 0
    mask = out / "instances/one/2.png"
    before = mask.read_bytes()
    save(mask, np.zeros((120, 160), np.uint8))
    assert cut(pictures, "--out", out, "--max-count", 1) == 1
    assert "changed by hand are kept" in capsys.readouterr().err
    mask.write_bytes(before)
    save(out / "instances/one/mine.png", drawn())
    assert cut(pictures, "--out", out, "--max-count", 1) == 1
    assert (out / "instances/one/mine.png").exists() and mask.exists()
    (out / "instances/one/mine.png").unlink()
    save(out / "overlays/one.png", drawn())
    assert cut(pictures, "--out", out, "--max-count", 1) == 1
    assert "none of ours" in capsys.readouterr().err
    (out / "overlays/one.png").unlink()
    assert cut(pictures, "--out", out, "--max-count", 1) == 0
    (out / "coco.json").write_text('{"images": []}')
    assert cut(pictures, "--out", out) == 1 and "coco.json exists" in capsys.readouterr().err


def test_a_run_that_died_is_cut_again(pictures, tmp_path, monkeypatch):
    from magiccolor_jax.prepare import cuts

    out, written = tmp_path / "out", []

    def dying(path, *rest):
        written.append(path)
        raise KeyboardInterrupt

    assert cut(pictures, "--out", out, "--max-count", 1) == 0
    monkeypatch.setattr(cuts, "write_png", dying)
    assert cut(pictures, "--out", out) == 130 and written
    monkeypatch.undo()
    assert cut(pictures, "--out", out, "--max-count", 1) == 0
    assert len(masks(out / "instances/one")) == len(masks(out / "instances/deep/two")) == 1
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 2


def test_odd_pictures_do_not_stop_the_others(pictures, tmp_path, capsys):
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    save(pictures / "a.png", colors)
    save(pictures / "b.png", np.arange(3000, dtype=np.uint8)[None, :, None].repeat(3, 2))
    (pictures / "c.png").symlink_to("nowhere.png")
    assert cut(pictures, "--out", tmp_path / "out") == 1
    assert "failed c" in capsys.readouterr().err
    assert len(masks(tmp_path / "out/instances/one")) == 2


def test_pictures_may_lie_below_out(pictures):
    assert cut(pictures / "one.png", "--out", pictures) == 0
    assert cut(pictures / "deep", "--out", pictures) == 0
    assert len(json.loads((pictures / "coco.json").read_text())["images"]) == 2


def test_a_cropped_drawing_is_one_instance(tmp_path):
    picture = np.zeros((100, 120, 4), np.uint8)
    picture[2:98, 2:118] = (200, 60, 60, 255)
    save(tmp_path / "one.png", picture)
    assert cut(tmp_path / "one.png", "--out", tmp_path / "out") == 0
    (mask,) = masks(tmp_path / "out/instances/one")
    assert (mask > 0).sum() == 96 * 116


def test_sam_finds_by_itself(pictures, sam, tmp_path, capsys):
    thresholds = ("--pred-iou-thresh", 0, "--stability-score-thresh", 0, "--points-per-side", 4)
    words = ("--model", sam, "--max-count", 3, "--no-merge", "--min-area", 0, *thresholds)
    assert cut(pictures / "one.png", "--out", tmp_path / "out", *words) == 0
    record = json.loads((tmp_path / "out/instances/one/instances.json").read_text())
    assert record["how"] == "SAM" and 1 <= len(record["instances"]) <= 3
    assert all("score" in each for each in record["instances"])
    assert "SAM on cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.png",), "expected a picture or a folder"),
        (("{in}", "--points", "4,5"), "are about one picture: expected one, got 2"),
        (("{in}/one.png", "--points", "4,5"), "prompts are SAM's to answer: expected --model"),
        (("{in}/one.png", "--points", "4"), "a point is X,Y"),
        (("{in}/one.png", "--boxes", "1,2,3,x"), "a box is LEFT,TOP,RIGHT,BOTTOM"),
        (("{in}", "{in}/deep/two.png", "{other}"), "would both be one"),
        (("{in}", "--min-area", "1"), "min_area in [0, 1)"),
        (("{in}", "--model", "{in}"), "config.json"),
    ],
)
def test_errors(pictures, tmp_path, capsys, words, message):
    save(tmp_path / "other/one.png", drawn())
    names = {"in": pictures, "other": tmp_path / "other"}
    assert cut(*[word.format(**names) for word in words], "--out", tmp_path / "out") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "must be JSON"),
        ("[]", "expected an object"),
        ('{"one": [{"points": [[1, 2, 3]]}]}', "one, prompt 1: expected points"),
        ('{"one": [{"colour": 1}]}', "expected some of points"),
        ('{"one": [{"points": [[1, 2]], "labels": [1, 0]}]}', "as many labels"),
        ('{"one": [{"points": [], "labels": []}]}', "expected points"),
        ('{"one": 5}', "expected a list of prompts"),
        ('{"one": []}', "expected a list of prompts"),
        ('{"one": [{"points": 5}]}', "one, prompt 1: expected points"),
        ('{"one": [{"points": [[1, 2]], "labels": null}]}', "expected points"),
        ('{"one": [{"box": [9, 2, 3, 4]}]}', "expected left < right"),
        ('{"one": [{"box": [1, 2, 3, 4]}], "one.png": [{"box": [1, 2, 3, 4]}]}', "named once"),
        ('{"four": [{"box": [1, 2, 3, 4]}]}', "of no picture that is given: four"),
        ('{"one": [{"points": [[200, 4]]}]}', "prompts lie on the picture: expected 0..160"),
    ],
)
def test_bad_prompts(pictures, sam, tmp_path, capsys, content, message):
    (tmp_path / "prompts.json").write_text(content)
    words = ("--model", sam, "--prompts", tmp_path / "prompts.json")
    assert cut(pictures / "one.png", "--out", tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
