"""Baselines: what they paint, where, and that lines stay."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from magiccolor_jax.evaluation.baselines import (
    BASELINES,
    by_position,
    grey,
    mean_color,
    nearest_patch,
    reinhard,
)
from magiccolor_jax.types import Case

RED, BLUE, GREEN = (200, 30, 20), (10, 40, 220), (20, 180, 60)


def full(shape, color):
    return np.full((*shape, 3), color, np.uint8)


def half(shape, rows=None, columns=None):
    mask = np.zeros(shape, np.uint8)
    mask[rows or slice(None), columns or slice(None)] = 255
    return mask


@pytest.fixture
def case():
    """White paper with black lines; the second mask lies over a part of the first."""
    sketch = full((61, 83), 255)
    sketch[30] = sketch[:, 40] = 0
    masks = half((61, 83), slice(5, 50), slice(3, 45)), half((61, 83), slice(20, 58), slice(35, 80))
    reference = full((37, 53), GREEN)  # does not count, but for a part
    reference[4:30, 7:33] = RED
    counts = half((37, 53), slice(4, 30), slice(7, 33))
    blue = full((64, 41), BLUE)
    return Case(
        name="page",
        path=Path("page"),
        layout="magiccolor",
        sketch=sketch,
        references=(reference, blue),
        reference_masks=(counts, half((64, 41))),
        sketch_masks=masks,
    )


def owners(case):
    owner = np.zeros(case.sketch.shape[:2], int)
    for index, mask in enumerate(case.sketch_masks):
        owner[mask > 127] = index + 1
    return owner


@pytest.mark.parametrize("name", BASELINES)
def test_outside_all_masks_nothing_changes(case, name):
    before = case.sketch.copy()
    page = BASELINES[name](case)
    assert page.dtype == np.uint8 and page.shape == before.shape
    np.testing.assert_array_equal(page[owners(case) == 0], before[owners(case) == 0])
    np.testing.assert_array_equal(case.sketch, before)


@pytest.mark.parametrize("paint", [mean_color, by_position, nearest_patch])
def test_paper_takes_the_colour_of_its_own_reference_and_lines_stay(case, paint):
    page, owner = paint(case), owners(case)
    paper = case.sketch[..., 0] == 255
    for index, color in ((1, RED), (2, BLUE)):
        found = page[paper & (owner == index)].astype(int)
        assert np.abs(found - color).max() <= 1
    assert not page[~paper].any()


def test_grey_is_the_sketch(case):
    np.testing.assert_array_equal(grey(case), case.sketch)


def test_reinhard_gives_mean_and_deviation(case):
    random = np.random.default_rng(0)
    lab = np.stack(
        [random.uniform(30, 70, (64, 41)), *random.uniform(-20, 20, (2, 64, 41))], axis=-1
    )
    pixels = np.rint(255 * cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB))
    case = case._replace(references=(case.references[0], pixels.astype(np.uint8)))
    inside = owners(case) == 2
    made, wanted = (
        cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for picture in (reinhard(case), case.references[1])
    )
    # The paper of one white cannot spread; its mean does what it can.
    np.testing.assert_allclose(
        made[inside].mean(axis=0)[1:], wanted.reshape(-1, 3).mean(0)[1:], atol=1
    )
    assert made[inside][:, 0].max() - made[inside][:, 0].min() > 20


def test_positions_are_kept(case):
    """Top of the reference red, bottom blue: so the region becomes."""
    reference = full((64, 40), RED)
    reference[32:] = BLUE
    case = case._replace(
        references=(case.references[0], reference),
        reference_masks=(case.reference_masks[0], half((64, 40))),
    )
    page = by_position(case)
    np.testing.assert_allclose(page[21, 60:79], np.broadcast_to(RED, (19, 3)), atol=1)
    np.testing.assert_allclose(page[57, 60:79], np.broadcast_to(BLUE, (19, 3)), atol=1)


def test_a_patch_finds_its_like():
    """Circles are red, crosses blue in the reference; on the page they have changed places."""
    shapes = full((32, 64), 255)
    cv2.circle(shapes, (16, 16), 8, (0, 0, 0), 2)
    cv2.line(shapes, (40, 8), (56, 24), (0, 0, 0), 2)
    cv2.line(shapes, (56, 8), (40, 24), (0, 0, 0), 2)
    reference = shapes.copy()
    reference[:, :32][shapes[:, :32, 0] == 255] = (255, 200, 200)
    reference[:, 32:][shapes[:, 32:, 0] == 255] = (200, 200, 255)
    sketch = np.concatenate([shapes[:, 32:], shapes[:, :32]], axis=1)
    case = Case(
        "page",
        Path("page"),
        "magiccolor",
        sketch,
        (reference,),
        (half((32, 64)),),
        (half((32, 64)),),
    )
    page = nearest_patch(case).astype(int)
    # Where ink is near: red less blue tells the two apart.
    assert (page[10:22, 10:22, 2] - page[10:22, 10:22, 0]).sum() > 0
    assert (page[8:24, 40:56, 0] - page[8:24, 40:56, 2]).sum() > 0


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "grey"])
def test_what_they_need_is_told(case, name):
    with pytest.raises(ValueError, match="expected a sketch mask for each of 2 .*, got 0"):
        BASELINES[name](case._replace(sketch_masks=()))
    empty = np.zeros((61, 83), np.uint8)
    with pytest.raises(ValueError, match="page: sketch mask 2 is empty"):
        BASELINES[name](case._replace(sketch_masks=(case.sketch_masks[0], empty)))
