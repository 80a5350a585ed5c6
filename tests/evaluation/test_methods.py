"""Whose pictures are judged, and what is said when some are missing."""

import numpy as np
import pytest
from oracles.case_folders import save, write_release_case
from oracles.colored_cases import COLORS, PAGE, painted, regions, write_colored_case

from magiccolor_jax.data.cases import read_case
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.evaluation.methods import (
    TRUTH,
    baseline,
    exchanged,
    folder_method,
    write_swapped,
)


@pytest.fixture
def cases(tmp_path):
    paths = {name: tmp_path / "cases" / name for name in ("a", "b/c", "d")}
    for count, path in enumerate(paths.values(), 1):
        write_colored_case(path, count)
    return paths


def predict(folder, names, suffix=".png", page=PAGE):
    for name in names:
        save(folder / f"{name}{suffix}", np.full((*page, 3), 9, np.uint8))
    return folder


def test_a_picture_for_every_case(cases, tmp_path):
    folder = predict(tmp_path / "pred", ["a", "d"])
    predict(folder, ["b/c"], ".webp")
    (folder / "manifest.json").write_text("{}")
    method = folder_method("ours", folder, cases)
    assert method.name == "ours" and method.pictures["b/c"] == folder / "b/c.webp"
    case = read_case(cases["a"])
    assert np.ptp(method.page("a", case)) == 0 and method.swapped_page("a", case) is None


def test_everything_that_is_wrong_is_in_one_report(cases, tmp_path):
    folder = predict(tmp_path / "pred", ["a", "B/c", "d"])
    predict(folder, ["d"], ".jpg")
    predict(folder / "swapped", ["b/c"])
    with pytest.raises(ValueError) as raised:
        folder_method("ours", folder, cases)
    message = str(raised.value)
    for part in (
        f"missing: {folder}/b/c",
        f"of no case: {folder}/B/c.png",
        f"twice: {folder}/d.png",
        f"missing: {folder}/swapped/d",
    ):
        assert part in message
    assert "swapped/a" not in message  # one reference cannot be exchanged


def test_pictures_of_other_cases_are_no_harm_where_none_is_missing(cases, tmp_path):
    folder = predict(tmp_path / "pred", [*cases, "elsewhere"])
    assert set(folder_method("ours", folder, cases).pictures) == set(cases)


def test_a_folder_that_is_none(cases, tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        folder_method("ours", tmp_path / "nowhere", cases)


def test_a_prediction_of_another_size(cases, tmp_path):
    method = folder_method("ours", predict(tmp_path / "pred", cases, page=(20, 30)), cases)
    with pytest.raises(CaseError, match=r"size of its sketch[\s\S]*64 x 48[\s\S]*30 x 20"):
        method.page("a", read_case(cases["a"]))


def test_truth_and_baselines(cases):
    case = read_case(cases["d"])
    np.testing.assert_array_equal(baseline(TRUTH).page("d", case), case.target)
    assert baseline(TRUTH).swapped_page("d", case) is None
    with pytest.raises(ValueError, match="no baseline 'gray': known are grey"):
        baseline("gray")


def test_exchanged_references_change_the_first_two_regions(cases):
    case = read_case(cases["d"])
    found = baseline("by_position").swapped_page("d", case)
    masks = regions(3)
    expected = painted([COLORS[i] for i in (1, 0, 2)], masks)
    inside = masks.any(axis=0) & (case.sketch > 128).all(axis=-1)
    gap = np.abs(found[inside].astype(int) - expected[inside])
    assert np.median(gap) <= 2
    order = [
        np.flatnonzero([r is x for x in case.references])[0] for r in exchanged(case).references
    ]
    assert order == [1, 0, 2]


def test_swapped_cases_are_cases(cases, tmp_path):
    made = write_swapped(cases, tmp_path / "swapped")
    assert set(made) == {"b/c", "d"}
    case, swapped = read_case(cases["d"]), read_case(made["d"])
    for one, other in zip(exchanged(case).references, swapped.references, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(case.sketch_masks, swapped.sketch_masks, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(case.target, swapped.target)
    before = (made["d"] / "sketch.png").stat().st_ctime_ns
    assert write_swapped(cases, tmp_path / "swapped") == made
    assert (made["d"] / "sketch.png").stat().st_ctime_ns == before


def test_swapped_cases_follow_their_cases(cases, tmp_path):
    made = write_swapped(cases, tmp_path / "swapped")
    new = np.full((30, 24, 3), 77, np.uint8)
    save(tmp_path / "new.png", new)
    (tmp_path / "new.png").rename(cases["d"] / "references/1.png")
    write_swapped(cases, tmp_path / "swapped")
    np.testing.assert_array_equal(read_case(made["d"]).references[1], new)


def test_the_releases_layout_has_nothing_to_exchange(tmp_path):
    write_release_case(tmp_path / "case")
    with pytest.raises(CaseError, match="references are exchanged in our layout"):
        write_swapped({"case": tmp_path / "case"}, tmp_path / "swapped")


def test_links_are_followed(cases, tmp_path):
    folder = predict(tmp_path / "elsewhere", ["c"])
    predict(tmp_path / "pred", ["a", "d"])
    (tmp_path / "pred/b").symlink_to(folder)
    found = folder_method("ours", tmp_path / "pred", cases).pictures
    assert found["b/c"] == tmp_path / "pred/b/c.png"
    reference = cases["d"] / "references/1.png"
    reference.rename(cases["d"] / "first.png")
    reference.symlink_to("../first.png")
    made = write_swapped(cases, tmp_path / "swapped")
    assert len(read_case(made["d"]).references) == 3


def test_reference_masks_travel_with_their_references(cases, tmp_path):
    save(
        cases["d"] / "reference_masks/1.png",
        np.pad(np.full((20, 24), 255, np.uint8), ((5, 5), (0, 0))),
    )
    swapped = read_case(write_swapped(cases, tmp_path / "swapped")["d"])
    assert (swapped.reference_masks[1] > 0).sum() == 20 * 24
    assert (swapped.reference_masks[0] > 0).all()
