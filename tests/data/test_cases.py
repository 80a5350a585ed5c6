"""Case folders: both layouts, pairing, order, and every folder that is not a case."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from oracles.case_folders import (
    REFERENCE_SHAPES,
    SKETCH_SHAPE,
    block_mask,
    noise,
    save,
    write_our_case,
    write_release_case,
)

from magiccolor_jax.data.cases import MAX_REFERENCES, CaseError, find_cases, read_case


def test_our_layout(tmp_path: Path):
    folder = write_our_case(tmp_path / "case")
    save(folder / "target.png", noise((*SKETCH_SHAPE, 3)))
    case = read_case(folder)
    assert (case.name, case.path, case.layout) == ("case", folder, "magiccolor")
    assert case.sketch.shape == (*SKETCH_SHAPE, 3)
    assert case.target is not None and case.target.shape == case.sketch.shape
    assert [mask.shape for mask in case.reference_masks] == list(REFERENCE_SHAPES)
    for number, picture in enumerate(case.references, 1):
        np.testing.assert_array_equal(picture, noise(picture.shape, number))
        assert case.sketch_masks[number - 1][5, 2 + 4 * number] == 255


def test_release_layout(tmp_path: Path):
    case = read_case(write_release_case(tmp_path / "published", count=11))
    assert case.layout == "release" and case.sketch_masks == () and case.target is None
    assert [m.shape for m in case.reference_masks] == [REFERENCE_SHAPES[i % 3] for i in range(11)]


def test_natural_order_gives_the_ids(tmp_path: Path):
    folder = write_our_case(tmp_path / "case", count=3)
    for part in ("references", "sketch_masks", "reference_masks"):
        for old, new in (("1", "hero10"), ("2", "hero2"), ("3", "Alba")):
            (folder / part / f"{old}.png").rename(folder / part / f"{new}.png")
    case = read_case(folder)
    assert [p.shape[:2] for p in case.references] == [REFERENCE_SHAPES[i] for i in (2, 1, 0)]
    assert [int(np.flatnonzero(m.any(0))[0]) for m in case.sketch_masks] == [14, 10, 6]


def test_other_files_are_ignored(tmp_path: Path):
    folder = write_our_case(tmp_path / "case")
    for name in ("notes.txt", ".DS_Store", "references/._1.png", "references/Thumbs.db", "x.png"):
        (folder / name).write_bytes(b"?")
    assert len(read_case(folder).references) == 3


@pytest.mark.parametrize("with_alpha", [True, False])
def test_without_reference_mask_the_alpha_channel_counts(tmp_path: Path, with_alpha: bool):
    folder = write_our_case(tmp_path / "case")
    (folder / "reference_masks/2.png").unlink()
    mask = block_mask(REFERENCE_SHAPES[1], 3, 4, 20, 30)
    if with_alpha:
        save(folder / "references/2.png", np.dstack([noise((*REFERENCE_SHAPES[1], 3)), mask]))
    found = read_case(folder).reference_masks[1]
    np.testing.assert_array_equal(found, mask if with_alpha else np.full_like(mask, 255))


def test_overlaps_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_our_case(tmp_path / "case")
    with caplog.at_level(logging.WARNING):
        read_case(folder)
        assert not caplog.records
        save(folder / "sketch_masks/2.png", block_mask(SKETCH_SHAPE, 5, 6, 14, 9))
        read_case(folder)
    assert "overlap in 40 pixels; the higher id owns them" in caplog.text


OURS = [
    ("sketch.png", None, "has a sketch and references"),
    ("sketch.jpg", "copy:sketch.png", "stands once: expected one picture called sketch"),
    ("references/2.jpg", "copy:references/2.png", "got 2.jpg and 2.png"),
    ("references/2.png", None, "sketch_masks/|every sketch mask belongs to a reference"),
    ("references", None, "expected 1 to 16 references, got 0"),
    ("sketch_masks/3.png", None, "every reference has a sketch mask: expected 3.png"),
    ("sketch_masks", None, "every reference has a sketch mask"),
    ("sketch_masks/9.png", "copy:sketch_masks/1.png", "every sketch mask belongs to a reference"),
    ("reference_masks/9.png", "copy:sketch_masks/1.png", "every reference mask belongs to a"),
    ("sketch_masks/1.png", "copy:reference_masks/1.png", "expected 83 x 61 like the sketch"),
    ("reference_masks/1.png", "copy:sketch_masks/1.png", "expected 53 x 37 like 1.png"),
    ("target.png", "copy:references/1.png", "a target has the size of its sketch"),
    ("references/2.png", "cut", "a picture can be read"),
    ("masks/mask_1.png", "copy:sketch_masks/1.png", "a case has one layout"),
    ("1.png", "copy:references/1.png", "a case has one layout"),
]


def _damage(folder: Path, name: str, how: str | None) -> None:
    """Removes a part (None), replaces it by a copy of another, or cuts it short."""
    part = folder / name
    if how is None:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:200])
    else:
        part.parent.mkdir(exist_ok=True)
        shutil.copy(folder / how.removeprefix("copy:"), part)


@pytest.mark.parametrize(("name", "how", "says"), OURS)
def test_bad_case_in_our_layout(tmp_path: Path, name: str, how: str | None, says: str):
    folder = write_our_case(tmp_path / "case")
    _damage(folder, name, how)
    with pytest.raises(CaseError, match=says) as caught:
        read_case(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("masks/mask_2.png", None, "every reference has a mask: expected mask_2.png"),
        ("masks", None, "every reference has a mask"),
        ("2.jpg", None, "every mask belongs to a reference"),
        ("masks/other.png", "copy:masks/mask_1.png", "every mask belongs to a reference"),
        ("masks/mask_1.png", "copy:masks/mask_2.png", "expected 53 x 37 like 1.jpg"),
        ("sketch.jpg", None, "has a sketch and references"),
    ],
)
def test_bad_case_in_the_release_layout(tmp_path: Path, name: str, how: str | None, says: str):
    folder = write_release_case(tmp_path / "published")
    _damage(folder, name, how)
    with pytest.raises(CaseError, match=says):
        read_case(folder)


def test_empty_masks(tmp_path: Path):
    folder = write_our_case(tmp_path / "case")
    save(folder / "sketch_masks/2.png", np.zeros(SKETCH_SHAPE, np.uint8))
    with pytest.raises(CaseError, match="at least one pixel"):
        read_case(folder)


def test_invisible_reference(tmp_path: Path):
    folder = write_our_case(tmp_path / "case")
    (folder / "reference_masks/2.png").unlink()
    save(folder / "references/2.png", np.zeros((*REFERENCE_SHAPES[1], 4), np.uint8))
    with pytest.raises(CaseError, match="at least one pixel"):
        read_case(folder)


def test_too_many_references(tmp_path: Path):
    assert (
        len(read_case(write_our_case(tmp_path / "most", MAX_REFERENCES)).references)
        == MAX_REFERENCES
    )
    with pytest.raises(CaseError, match="expected 1 to 16 references, got 17"):
        read_case(write_our_case(tmp_path / "more", MAX_REFERENCES + 1))


def test_not_a_folder(tmp_path: Path):
    for path in (tmp_path / "absent", write_our_case(tmp_path / "case") / "sketch.png"):
        with pytest.raises(CaseError, match="a case is a folder"):
            read_case(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaseError, match="got nothing; give a case folder"):
        read_case(tmp_path / "empty")


def test_find_walks_in_natural_order(tmp_path: Path):
    names = ("page2", "page10", "deep/er/page1", ".hidden/page")
    for name in names:
        write_our_case(tmp_path / name)
    write_release_case(tmp_path / "page3")
    shutil.copytree(tmp_path / "page2", tmp_path / "page4")
    (tmp_path / "page4/sketch.png").unlink()  # broken, but to be reported
    found = [str(path.relative_to(tmp_path)) for path in find_cases([tmp_path])]
    assert found == ["deep/er/page1", "page2", "page3", "page4", "page10"]


def test_find_keeps_given_order_and_lists_once(tmp_path: Path):
    first, second = write_our_case(tmp_path / "b"), write_our_case(tmp_path / "a")
    (tmp_path / "link").symlink_to(second)
    (tmp_path / "a/loop").symlink_to(tmp_path)
    given = [str(first), tmp_path / "link", tmp_path, first]
    assert find_cases(given) == [first, tmp_path / "link"]


def test_find_keeps_what_is_no_case_for_the_reader_to_report(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "absent", write_our_case(tmp_path / "good"), tmp_path / "empty"]
    assert find_cases(paths) == paths


def test_a_folder_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good, locked = write_our_case(tmp_path / "good"), write_our_case(tmp_path / "locked")
    listdir = os.listdir

    def refuse(path: str | Path) -> list[str]:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert find_cases([tmp_path]) == [good, locked]
    with pytest.raises(CaseError, match="got Permission denied; check the path"):
        read_case(locked)
