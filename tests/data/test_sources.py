"""Sources of folders: what a scene is made of, in which order, and every folder that is none."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from oracles.case_folders import block_mask, noise, save, write_our_case, write_release_case
from oracles.training_folders import (
    PROVENANCE,
    TARGET_SHAPE,
    VIEW_SHAPE,
    assert_same,
    instance_mask,
    make_scene,
    write_frames,
    write_pair,
    write_picture_folder,
    write_training_case,
)
from PIL import Image

from magiccolor_jax.data.cases import read_case
from magiccolor_jax.data.folders import CaseFolders, ReleaseFolders, Triplets
from magiccolor_jax.data.pairs import LeftPairs, RightPairs, SidePairs
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.scenes import Outline
from magiccolor_jax.data.shards import Records, write_records
from magiccolor_jax.data.sources import KINDS, TOLD, Concatenation, open_source, outlines


def write_records_folder(folder: Path) -> Path:
    write_records(folder, [(make_scene(folder.name), PROVENANCE)])
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "records": write_records_folder,
    "cases": write_training_case,
    "release": write_picture_folder,
    "triplets": write_frames,
    **dict.fromkeys(
        ("pairs", "pairs-left", "pairs-right"),
        lambda folder: write_pair(folder / f"{folder.name}.png"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_keeps_the_contract(tmp_path: Path, kind: str):
    for name in ("s10", "s2", "deep/s1"):
        WRITERS[kind](tmp_path / name)
    source = KINDS[kind](tmp_path)
    assert len(source) == 3
    scenes = [source[i] for i in range(3)]
    names = [scene.name for scene in scenes]
    assert names == ["s1", "s2", "s10"]
    for index, scene in enumerate(scenes):
        shape = scene.target.shape[:2]
        assert source.outline(index) == Outline(*shape, len(scene.masks))
        assert len(scene.views) == len(scene.masks) >= 1
        assert scene.target.dtype == np.uint8 and scene.target.flags.c_contiguous
        assert scene.lines is None or scene.lines.shape == scene.target.shape
        assert all(mask.shape == shape and mask.any() for mask in scene.masks)
        assert all(v.mask.shape == v.picture.shape[:2] for views in scene.views for v in views)
        assert str(scene.path).startswith(str(tmp_path))
    again = cloudpickle.loads(cloudpickle.dumps(source))
    assert again.fingerprint() == source.fingerprint()
    assert repr(again) == repr(source) and "3 scenes" in repr(source)
    assert_same(again[1], scenes[1])
    with pytest.raises(IndexError):
        source[3]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "records"])
def test_scanning_and_outlines_decode_nothing(tmp_path: Path, kind: str):
    WRITERS[kind](tmp_path / "scene")
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:80])  # the header and a little more
    source = KINDS[kind](tmp_path)
    assert source.outline(0).height > 0
    with pytest.raises(CaseError, match="a picture can be read"):
        source[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "records"])
def test_fingerprints_tell_scenes_apart_but_not_where_they_stand(tmp_path: Path, kind: str):
    for name in ("a/s1", "a/s2", "b/s1", "b/s3"):
        WRITERS[kind](tmp_path / name)
    here = KINDS[kind](tmp_path / "a").fingerprint()
    assert here != KINDS[kind](tmp_path / "b").fingerprint()
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    assert here == KINDS[kind](tmp_path / "elsewhere").fingerprint()


def test_scenes_without_a_size_are_told_all_at_once(tmp_path: Path):
    for name in ("one", "two", "three"):
        write_training_case(tmp_path / name)
    for name in ("one", "three"):
        (tmp_path / name / "target.png").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="2 scenes cannot be used:(.|\n)*one(.|\n)*three"):
        outlines(CaseFolders(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_says_what_was_expected(tmp_path: Path, kind: str):
    (tmp_path / "notes.txt").write_text("?")
    (tmp_path / "sub").mkdir()
    with pytest.raises(CaseError) as caught:
        KINDS[kind](tmp_path)
    assert KINDS[kind].LAYOUT in str(caught.value) and "got notes.txt, sub" in str(caught.value)
    with pytest.raises(CaseError, match="got No such file"):
        KINDS[kind](tmp_path / "absent")


def test_cases(tmp_path: Path):
    write_training_case(tmp_path / "case", 3)
    scene, case = CaseFolders(tmp_path)[0], read_case(tmp_path / "case")
    np.testing.assert_array_equal(scene.target, noise((61, 83, 3), 90))
    np.testing.assert_array_equal(scene.lines, case.sketch)
    for i in range(3):
        np.testing.assert_array_equal(scene.masks[i], case.sketch_masks[i])
        np.testing.assert_array_equal(scene.views[i][0].picture, case.references[i])
        np.testing.assert_array_equal(scene.views[i][0].mask, case.reference_masks[i])


def test_overlaps_are_not_reported_again_and_again(tmp_path: Path, caplog):
    write_training_case(tmp_path / "case")
    save(tmp_path / "case/sketch_masks/2.png", block_mask((61, 83), 5, 6, 14, 9))
    assert len(CaseFolders(tmp_path)[0].masks) == 2
    assert not caplog.records


def test_cases_without_target_or_sketch_masks(tmp_path: Path):
    write_our_case(tmp_path / "a")
    save(write_release_case(tmp_path / "b") / "target.png", noise((61, 83, 3)))
    source = CaseFolders(tmp_path)
    for read in (source.__getitem__, source.outline):
        with pytest.raises(CaseError, match="/a: .*expected target.*, got reference_masks, ref"):
            read(0)
    with pytest.raises(CaseError, match="/b: .*without sketch masks"):
        source[1]
    with pytest.raises(CaseError, match="/b: .*without sketch masks"):
        source.outline(1)


def test_release_picture_with_references(tmp_path: Path):
    folder = write_picture_folder(tmp_path / "witch", count=10, views=(2, 10))
    alpha = block_mask(VIEW_SHAPE, 3, 4, 9, 8)
    save(folder / "witch_2.png", np.dstack([noise((*VIEW_SHAPE, 3), 2), alpha]))
    scene = ReleaseFolders(tmp_path)[0]
    np.testing.assert_array_equal(scene.target, noise((*TARGET_SHAPE, 3), 50))
    assert scene.name == "witch" and scene.path == folder and scene.lines is None
    for number, mask in enumerate(scene.masks, 1):
        np.testing.assert_array_equal(mask, instance_mask(number))
    assert [len(views) for views in scene.views] == [0, 1] + [0] * 7 + [1]
    np.testing.assert_array_equal(scene.views[1][0].mask, alpha)
    np.testing.assert_array_equal(scene.views[9][0].mask, 255)
    np.testing.assert_array_equal(scene.views[9][0].picture, noise((*VIEW_SHAPE, 3), 10))


@pytest.mark.parametrize("source", [ReleaseFolders, Triplets])
def test_frames_with_masks(tmp_path: Path, source: type[ReleaseFolders]):
    folder = write_frames(tmp_path / "clip", count=3)
    scene = source(tmp_path)[0]
    np.testing.assert_array_equal(scene.target, noise((*TARGET_SHAPE, 3), 63))
    for number, (mask, views) in enumerate(zip(scene.masks, scene.views, strict=True)):
        np.testing.assert_array_equal(mask, instance_mask(number))
        np.testing.assert_array_equal(views[0].picture, noise((*TARGET_SHAPE, 3), 61))
        np.testing.assert_array_equal(views[0].mask, 255)
    first = block_mask(TARGET_SHAPE, 1, 2, 9, 9)
    save(folder / "frame1_masks/mask_1.png", first)
    views = source(tmp_path)[0].views
    assert [len(views) for views in views] == [0, 1, 0]
    np.testing.assert_array_equal(views[1][0].mask, first)


def test_triplets(tmp_path: Path):
    write_frames(tmp_path / "train/clip")
    scene = Triplets(tmp_path)[0]
    np.testing.assert_array_equal(scene.target, noise((*TARGET_SHAPE, 3), 63))
    assert len(scene.masks) == 1 and scene.lines is None
    np.testing.assert_array_equal(scene.masks[0], np.full(TARGET_SHAPE, 255))
    ((view,),) = scene.views
    np.testing.assert_array_equal(view.picture, noise((*TARGET_SHAPE, 3), 61))
    np.testing.assert_array_equal(view.mask, np.full(TARGET_SHAPE, 255))


BAD = [
    ("clip/frame1.png", None, "clip: a training folder has one layout"),
    ("clip/frame3.png", None, "clip: a training folder has one layout"),
    ("clip/frame3.jpg", "clip/frame3.png", "got frame3.jpg and frame3.png"),
    ("clip/clip.png", "clip/frame3.png", "clip: a training folder has one layout"),
    ("clip/masks/1.png", "clip/masks/mask_1.png", "1.png: masks are numbered"),
    ("clip/frame1_masks/mask_7.png", "clip/masks/mask_1.png", "expected mask_7.png beside mask_0"),
    ("clip/frame1_masks/mask_0.png", "page/page_2.png", "mask_0.png: a mask has the size of its"),
    ("clip/masks/mask_1.png", "page/page_2.png", "mask_1.png: .*expected 56 x 40 like frame3.png"),
    ("clip/masks/mask_1.png", "black", "mask_1.png: a mask marks at least one pixel"),
    ("clip/masks/mask_1.png", "cut", "mask_1.png: a picture can be read"),
    ("page/page.png", None, "page: a training folder has one layout"),
    ("page/page_9.png", "page/page_2.png", "page_9.png: every view belongs to an instance"),
    ("page/page_2.png", "cut", "page_2.png: a picture can be read"),
    ("page/masks", None, None),
]


@pytest.mark.parametrize(("name", "how", "says"), BAD)
def test_bad_training_folders(tmp_path: Path, name: str, how: str | None, says: str | None):
    write_frames(tmp_path / "clip", count=2)
    write_picture_folder(tmp_path / "page")
    part = tmp_path / name
    if how is None:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    elif how == "black":
        save(part, np.zeros(TARGET_SHAPE, np.uint8))
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:60])
    else:
        part.parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / how, part)
    source = ReleaseFolders(tmp_path)
    if says is None:  # nothing is left that makes it a scene
        assert len(source) == 1
        return
    bad = int(name.startswith("page"))
    with pytest.raises(CaseError, match=says):
        source[bad]
    assert source[1 - bad].masks


def test_frames_without_masks_are_no_release_folder(tmp_path: Path):
    write_frames(tmp_path / "clip")
    source = ReleaseFolders(tmp_path)
    for read in (source.__getitem__, source.outline):
        with pytest.raises(CaseError, match="got no masks/mask_"):
            read(0)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("kind", [SidePairs, LeftPairs, RightPairs])
def test_pairs(tmp_path: Path, left: bool, kind: type[SidePairs]):
    write_pair(tmp_path / "1.png", sketch_left=left)
    scene = kind(tmp_path)[0]
    colours, sketch = noise((28, 28, 3), 70), np.repeat(noise((28, 28, 1), 71), 3, axis=2)
    right_way = kind is SidePairs or (kind is LeftPairs) == left
    assert scene.lines is not None
    np.testing.assert_array_equal(scene.target, colours if right_way else sketch)
    np.testing.assert_array_equal(scene.lines, sketch if right_way else colours)
    np.testing.assert_array_equal(scene.masks[0], np.full((28, 28), 255))
    assert scene.views == ((),) and scene.target.flags.c_contiguous


def test_pairs_stand_in_any_folder(tmp_path: Path):
    for name in ("preview10.png", "preview9.png", "train/2.jpg", "train/10.png", ".trash/1.png"):
        write_pair(tmp_path / name)
    source = RightPairs(tmp_path)
    names = [source[i].path.relative_to(tmp_path).as_posix() for i in range(len(source))]
    assert names == ["preview9.png", "preview10.png", "train/2.jpg", "train/10.png"]


def test_pairs_that_cannot_be_cut(tmp_path: Path):
    save(tmp_path / "odd.png", noise((20, 41, 3)))
    save(tmp_path / "twin.png", np.hstack([noise((20, 20, 3))] * 2))
    source = SidePairs(tmp_path)
    for read in (source.__getitem__, source.outline):
        with pytest.raises(CaseError, match="odd.png: .*expected an even width, got 41"):
            read(0)
    with pytest.raises(CaseError, match="twin.png: .* half of less .*pairs-left:FOLDER"):
        source[1]


def test_outlines_are_of_the_upright_picture(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, suffix in (("a", "png"), ("b", "jpg"), ("c", "webp")):
        (tmp_path / name / "masks").mkdir(parents=True)
        pixels = Image.fromarray(noise((*TARGET_SHAPE, 3)))
        pixels.save(tmp_path / name / f"{name}.{suffix}", exif=exif)
        save(tmp_path / name / "masks/mask_0.png", instance_mask(0, TARGET_SHAPE[::-1]))
    source = ReleaseFolders(tmp_path)
    for index in range(3):
        assert source.outline(index) == Outline(*TARGET_SHAPE[::-1], 1)
        assert source[index].target.shape[:2] == TARGET_SHAPE[::-1]


def test_concatenation(tmp_path: Path):
    parts = [
        SidePairs(write_pair(tmp_path / "p/1.png").parent),
        Records(write_records_folder(tmp_path / "r")),
    ]
    (
        write_picture_folder(tmp_path / "f/one"),
        write_picture_folder(tmp_path / "f/two", count=1, views=()),
    )
    both = Concatenation([*parts, Concatenation([ReleaseFolders(tmp_path / "f")])])
    assert len(both) == 4
    assert [both[i].name for i in range(4)] == ["1", "r", "one", "two"]
    assert [both.outline(i).instances for i in range(4)] == [1, 2, 3, 1]
    assert [scene.name for scene in cloudpickle.loads(cloudpickle.dumps(both))] == [
        "1",
        "r",
        "one",
        "two",
    ]
    for index in (-1, 4):
        with pytest.raises(IndexError, match="no scene"):
            both[index]
    with pytest.raises(ValueError, match="at least one source"):
        Concatenation([])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_open(tmp_path: Path, kind: str, named: bool):
    WRITERS[kind](tmp_path / "a/scene")
    source = open_source(f"{kind}:{tmp_path}" if named else str(tmp_path))
    found = KINDS["pairs" if kind in TOLD and not named else kind]
    assert type(source) is found and len(source) == 1


def test_frames_with_masks_open_as_the_releases(tmp_path: Path):
    write_frames(tmp_path / "clip", count=1)
    assert type(open_source(str(tmp_path))) is ReleaseFolders


def test_a_release_case_opens_as_a_case(tmp_path: Path):
    write_release_case(tmp_path / "case")
    assert type(open_source(str(tmp_path))) is CaseFolders


def test_a_path_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_frames(tmp_path / "a:b/clip")
    monkeypatch.chdir(tmp_path)
    for text in ("a:b", "triplets:a:b", str(tmp_path / "a:b")):
        assert len(open_source(text)) == 1


def test_several_kinds_in_one_folder(tmp_path: Path):
    for kind in ("cases", "triplets"):
        for name in "ab":
            WRITERS[kind](tmp_path / kind / name)
    with pytest.raises(CaseError) as caught:
        open_source(str(tmp_path))
    assert "got 2 folders of cases, 2 folders of triplets; name kind and folder" in str(
        caught.value
    )


def test_nothing_known_in_a_folder(tmp_path: Path):
    save(tmp_path / "page.png", noise((20, 20, 3)))
    with pytest.raises(CaseError) as caught:
        open_source(str(tmp_path))
    known = {kind: source for kind, source in KINDS.items() if kind not in TOLD}
    assert all(f"{kind}: {source.LAYOUT}" in str(caught.value) for kind, source in known.items())
    assert "got page.png; check the path" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("case:{}", "got 'case'; did you mean cases:"),
        ("triplet:{}", "did you mean triplets:"),
        ("hdf:{}", "expected KIND:PATH with one of records, cases, .* got 'hdf'; name one"),
        ("cases:{}/claps", "got nothing; did you mean .*/clips"),
        ("{}/claps", "got nothing; did you mean .*/clips"),
        ("{}/other/deep", "got nothing; check the path"),
        ("{}/clips/clip/frame1.png", "expected a folder of scenes, got a file"),
    ],
)
def test_mistyped(tmp_path: Path, text: str, says: str):
    write_frames(tmp_path / "clips/clip")
    with pytest.raises(ValueError, match=says):
        open_source(text.format(tmp_path))
