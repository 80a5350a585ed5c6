"""Prompts and grids against segment-anything, by a golden of scripts/goldens_sam.py."""

import numpy as np
import pytest
from golden_weights import seeded_pictures
from goldens_sam import AUTOMATIC, GOLDEN, REGIONS, SHAPES, picture
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.segment import automatic
from magiccolor_jax.segment.automatic import (
    AutomaticConfig,
    crop_boxes,
    point_grid,
    segment,
    suppress,
    without_small,
)
from magiccolor_jax.segment.predictor import Predictor, frame_of, to_picture
from magiccolor_jax.segment.sam import SAM
from magiccolor_jax.segment.sam_config import SAMConfig

pytestmark = pytest.mark.usefixtures("compile_well")

TOLERANCE = 1e-5

DIFFERENT = 2e-4
"""Share of a mask's pixels that may differ: its logits are near 0 there."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(seeded_network(SAM, SAMConfig.nano(), maps.SAM))


def masks_of(golden, key, count, shape):
    return np.unpackbits(golden[key], count=count * shape[0] * shape[1]).reshape(count, *shape)


@pytest.mark.parametrize("kind", ["points", "box", "both"])
@pytest.mark.parametrize("name", SHAPES)
def test_prompts(predictor, golden, name, kind):
    height, width = SHAPES[name]
    points = np.array([[[0.3 * width, 0.6 * height], [0.7 * width, 0.2 * height]]])
    box = np.array([[0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height]])
    prompts = {
        "points": {"points": points, "labels": np.array([[1, 0]])},
        "box": {"boxes": box, "several": False},
        "both": {"points": points, "labels": np.array([[1, 1]]), "boxes": box},
    }
    found = predictor.predict(predictor.embed(picture(name)), **prompts[kind])
    quality, logits = (golden[f"{name}/{kind}/{part}"] for part in ("quality", "logits"))
    scale = np.abs(logits).max()
    assert np.abs(found.logits[0][:, ::3, ::3] - logits).max() < TOLERANCE * scale
    assert np.abs(found.quality[0] - quality).max() < TOLERANCE * np.abs(quality).max()
    expected = masks_of(golden, f"{name}/{kind}/masks", len(quality), (height, width))
    assert (found.masks[0] != expected).mean() < DIFFERENT and 0 < expected.mean() < 1


@pytest.mark.parametrize(("kind", "options"), [("automatic", AUTOMATIC), ("regions", REGIONS)])
@pytest.mark.parametrize("name", SHAPES)
def test_grids(predictor, golden, name, kind, options):
    found = segment(predictor, picture(name), AutomaticConfig(**options))
    part = {key: golden[f"{name}/{kind}/{key}"] for key in ("bbox", "predicted_iou")}
    assert len(found.boxes) == len(part["bbox"]) > 0
    np.testing.assert_allclose(found.quality, part["predicted_iou"], rtol=1e-4, atol=1e-5)
    stability = golden[f"{name}/{kind}/stability_score"]
    np.testing.assert_allclose(found.stability, stability, atol=2e-3)
    corner, size = np.split(part["bbox"], 2, axis=1)
    assert np.abs(found.boxes - np.concatenate([corner, corner + size], axis=1)).max() <= 1
    np.testing.assert_allclose(found.points, golden[f"{name}/{kind}/point_coords"][:, 0])
    expected = masks_of(golden, f"{name}/{kind}/masks", len(stability), SHAPES[name])
    ours = np.stack([found.mask(i, SHAPES[name]) for i in range(len(stability))])
    assert (ours != expected).mean() < DIFFERENT
    crops = golden[f"{name}/{kind}/crop_box"]
    np.testing.assert_array_equal(found.crops[:, :2], crops[:, :2])
    np.testing.assert_array_equal(found.crops[:, 2:] - found.crops[:, :2], crops[:, 2:])


def test_the_grid_lies_in_the_middles_of_cells():
    np.testing.assert_allclose(
        point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75] * 2]
    )


def test_crops_cover_the_picture():
    config = AutomaticConfig(crop_n_layers=2)
    found = crop_boxes((100, 160), config)
    assert [layer for _, layer in found] == [0] + [1] * 4 + [2] * 16
    for layer in range(3):
        seen = np.zeros((100, 160), int)
        for (left, top, right, bottom), each in found:
            seen[top:bottom, left:right] += each == layer
        assert seen.min() >= 1


def test_the_best_of_boxes_that_overlap_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 0, 0]])
    scores = np.array([0.5, 0.9, 0.1, 0.7])
    assert suppress(boxes, scores, 0.7).tolist() == [1, 3, 2]
    assert suppress(boxes, scores, 0.9).tolist() == [1, 3, 0, 2]


def test_small_holes_and_islands_go_and_something_stays():
    mask = np.zeros((20, 30), bool)
    mask[2:12, 2:12] = True
    mask[5, 5] = False
    mask[15:17, 20:22] = True
    expected = np.zeros_like(mask)
    expected[2:12, 2:12] = True
    np.testing.assert_array_equal(without_small(mask, 5), expected)
    np.testing.assert_array_equal(without_small(mask, 1), mask)
    np.testing.assert_array_equal(without_small(mask, 300), expected)


@pytest.mark.parametrize(
    "prompt", [{}, {"points": np.zeros((1, 1, 2))}, {"labels": np.ones((1, 1), int)}]
)
def test_prompts_that_are_none(predictor, prompt):
    with pytest.raises(ValueError, match="a prompt is points with labels, boxes, or both"):
        predictor.predict(predictor.embed(picture("wide")), **prompt)


def test_pictures_of_many_sizes_take_few_programs_and_little_memory(predictor):
    config = AutomaticConfig(**AUTOMATIC | {"crop_n_layers": 0})
    programs = automatic._candidates.jitted_fn
    segment(predictor, picture("wide"), config)
    before = programs._cache_size()
    for shape in ((71, 99), (90, 120), (128, 128)):
        pixels = 255 * seeded_pictures("sizes", (1, *shape, 3))[0]
        segment(predictor, pixels.clip(0, 255).astype(np.uint8), config)
    assert programs._cache_size() == before
    for length in range(200, 230):
        to_picture(256, 1024, frame_of((length, 200), 1024))
    assert to_picture.cache_info().currsize < 10
