"""A case -> a batch: instance map, boxes, tokens, notes; buckets and stacking."""

import dataclasses
import logging
from pathlib import Path

import cv2
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

from magiccolor_jax.data.batches import BUCKETS, bucket_of, make_batch, pad_instances, stack
from magiccolor_jax.data.cases import MAX_REFERENCES, CaseError, find_cases, read_case
from magiccolor_jax.data.sketches import SketchJitter
from magiccolor_jax.data.transforms import sketch_pixels
from magiccolor_jax.embedded import CASES
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Case, Sizes

PAPER, RELEASE = Recipe.paper(), Recipe.release()
SIZES = Sizes(page=128, canvas=128, reference=70, patch=14, clip=32)


def make_case(
    sketch_masks: list[np.ndarray],
    reference_masks: list[np.ndarray] | None = None,
    layout: str = "",
) -> Case:
    """A case in memory whose references are noise."""
    masks = reference_masks or [np.full((30, 50), 255, np.uint8)] * len(sketch_masks)
    shape = sketch_masks[0].shape if sketch_masks else SKETCH_SHAPE
    return Case(
        name="page",
        path=Path("pages/page"),
        layout=layout or "magiccolor",
        sketch=np.full((*shape, 3), 255, np.uint8),
        references=tuple(noise((*mask.shape, 3), i) for i, mask in enumerate(masks)),
        reference_masks=tuple(masks),
        sketch_masks=tuple(sketch_masks),
    )


@pytest.mark.parametrize(
    ("count", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16)]
)
def test_bucket_of(count: int, bucket: int):
    assert bucket_of(count) == bucket


@pytest.mark.parametrize("count", [0, MAX_REFERENCES + 1])
def test_bucket_of_refuses(count: int):
    with pytest.raises(ValueError, match=f"1 to 16 instances, got {count}"):
        bucket_of(count)
    assert BUCKETS[-1] == MAX_REFERENCES


@pytest.mark.parametrize("recipe", [PAPER, RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("write", [write_our_case, write_release_case])
def test_from_the_folder(tmp_path: Path, write, recipe: Recipe):
    case = read_case(write(tmp_path / "case", count=3))
    if recipe is PAPER and case.layout == "release":
        with pytest.raises(CaseError, match="--recipe release"):
            make_batch(case, recipe, SIZES, bucket=4, seed=0)
        return
    batch, fit, notes = make_batch(case, recipe, SIZES, bucket=4, seed=0)
    height, width = fit.bucket
    ignored = recipe is RELEASE and case.layout == "magiccolor"
    assert ["takes no notice of sketch_masks" in note for note in notes] == [True] * ignored
    assert {name: (a.shape, str(a.dtype)) for name, a in batch._asdict().items()} == {
        "sketch": ((1, height, width, 3), "float32"),
        "canvas": ((1, 128, 128, 3), "float32"),
        "clip_pixels": ((1, 32, 32, 3), "float32"),
        "reference_pixels": ((1, 4, 70, 70, 3), "float32"),
        "instance_map": ((1, height, width), "int32"),
        "boxes": ((1, 4, 4), "int32"),
        "roi": ((1, 4, 4), "float32"),
        "valid": ((1, 4), "bool"),
    }
    np.testing.assert_array_equal(batch.valid, [[True, True, True, False]])
    assert set(np.unique(batch.instance_map)) == {0, 1, 2, 3}
    for index in range(3):
        rows, columns = np.where(batch.instance_map[0] == index + 1)
        ends = (rows.min(), columns.min(), rows.max(), columns.max())
        np.testing.assert_array_equal(batch.boxes[0, index], ends)
    for padded in (batch.boxes, batch.roi, batch.reference_pixels):
        assert not padded[0, 3].any()


def test_masks_stand_where_the_page_puts_them():
    sketch_masks = [block_mask((64, 32), 0, 0, 31, 31), block_mask((64, 32), 48, 16, 63, 23)]
    batch, fit, _ = make_batch(make_case(sketch_masks), PAPER, SIZES, bucket=2, seed=0)
    assert fit.bucket == (128, 64) and fit.placed == (0, 0, 128, 64)
    np.testing.assert_array_equal(batch.boxes[0], [[0, 0, 63, 63], [96, 32, 127, 47]])
    assert (batch.instance_map[0, :64] == 1).all()


def test_higher_id_wins_and_a_hidden_instance_stays(caplog: pytest.LogCaptureFixture):
    large, small = block_mask((128, 128), 10, 10, 90, 90), block_mask((128, 128), 30, 30, 60, 70)
    with caplog.at_level(logging.WARNING):
        batch, _, notes = make_batch(make_case([small, large]), PAPER, SIZES, bucket=2, seed=0)
    overlap = f"sketch masks overlap in {31 * 41} pixels; the higher id owns them"
    assert notes == ("instance 1 owns no pixel of the 128 x 128 page", overlap)
    assert f"pages/page: {notes[0]}" in caplog.text
    np.testing.assert_array_equal(batch.valid, [[False, True]])
    assert batch.reference_pixels[0, 0].any() and not batch.boxes[0, 0].any()
    batch, _, notes = make_batch(make_case([large, small]), PAPER, SIZES, bucket=2, seed=0)
    assert notes == (overlap,) and batch.valid.all()
    np.testing.assert_array_equal(batch.boxes[0], [[10, 10, 90, 90], [30, 30, 60, 70]])
    assert (batch.instance_map[0, 30:61, 30:71] == 2).all()


def test_release_fills_the_rectangles_of_the_canvas_unmirrored():
    masks = [block_mask((128, 128), 0, 0, 100, 100)] * 5
    case = make_case([], masks, layout="release")
    recipe = Recipe.from_json({**RELEASE.__dict__, "mirror_canvas": 1.0})
    batch, _, notes = make_batch(case, recipe, SIZES, bucket=8, seed=3)
    quarters = [[0, 0, 63, 63], [0, 64, 63, 127], [64, 0, 127, 63], [64, 64, 127, 127]]
    np.testing.assert_array_equal(batch.boxes[0, :4], quarters)
    np.testing.assert_array_equal(batch.valid[0], [True] * 4 + [False] * 4)
    assert batch.reference_pixels[0, 4].any()  # its patch stays in the list
    assert notes == (
        "reference 5 found no place on the canvas and is left out of it",
        "instance 5 owns no pixel of the 128 x 128 page",
    )
    np.testing.assert_array_equal(batch.roi[0, :5], [[0, 0, 4, 4]] * 5)


def test_a_dark_sketch_is_noted():
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)])
    case = case._replace(sketch=255 - case.sketch)
    batch, _, notes = make_batch(case, PAPER, SIZES, bucket=1, seed=0)
    np.testing.assert_allclose(batch.sketch, 1, atol=1e-6)
    dark = "the sketch has light lines on a dark ground: inverted to black lines on white"
    assert notes == (dark,)


def drawn_case() -> Case:
    """Black lines on white, with a margin of padding when it is fitted."""
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)])
    case.sketch[20:22, 5:70] = 0
    case.sketch[10:50, 33] = 0
    return case


def test_the_recipe_says_whether_a_sketch_is_normalised():
    case = drawn_case()
    faint = case._replace(
        sketch=np.rint(150 * (1 - 0.4 * (1 - case.sketch / 255))).astype(np.uint8)
    )
    expected = make_batch(case, PAPER, SIZES, bucket=1, seed=0).batch.sketch
    found = make_batch(faint, PAPER, SIZES, bucket=1, seed=0).batch.sketch
    assert np.abs(found - expected).mean() < 0.02 and expected.min() == -1
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    as_is = dataclasses.replace(PAPER, sketch_polarity="as_is")
    plain, fit, _ = make_batch(faint, as_is, SIZES, bucket=1, seed=0)
    np.testing.assert_array_equal(plain.sketch[0], sketch_pixels(faint.sketch, fit, as_is))


def test_jitter_changes_the_sketch_alone_and_always_alike():
    case, jitter = drawn_case(), SketchJitter(thickness=1.0, fade=1.0, grain=1.0, gap=1.0)
    recipe = Recipe(mirror_canvas=0.5)
    for seed in range(4):
        plain, fit, _ = make_batch(case, recipe, SIZES, bucket=1, seed=seed)
        once, again = (
            make_batch(case, recipe, SIZES, bucket=1, seed=seed, jitter=jitter).batch
            for _ in range(2)
        )
        for name in plain._fields:
            ours, other = getattr(once, name), getattr(again, name)
            np.testing.assert_array_equal(ours, other)
            assert np.array_equal(ours, getattr(plain, name)) == (name != "sketch")
        padding = np.ones(fit.bucket, bool)
        padding[fit.placed.slices] = False
        assert padding.any() and (once.sketch[0][padding] == 1).all()
    sketches = [
        make_batch(case, recipe, SIZES, bucket=1, seed=seed, jitter=jitter).batch.sketch
        for seed in range(3)
    ]
    assert len({sketch.tobytes() for sketch in sketches}) == 3
    off = make_batch(case, recipe, SIZES, bucket=1, seed=0, jitter=SketchJitter.off()).batch
    np.testing.assert_array_equal(
        off.sketch, make_batch(case, recipe, SIZES, bucket=1, seed=0).batch.sketch
    )


def test_no_jitter_around_a_sketch_as_it_is():
    recipe = Recipe(sketch_polarity="as_is")
    with pytest.raises(ValueError, match="sketch_polarity='black_on_white', got 'as_is'"):
        make_batch(drawn_case(), recipe, SIZES, bucket=1, seed=0, jitter=SketchJitter())


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # 70 x 70: no resizing; token t is centred on pixel 14 t + 6.5.
        (block_mask((70, 70), 6, 20, 48, 34), (-0.5 / 14, 13.5 / 14, 41.5 / 14, 27.5 / 14)),
        (block_mask((70, 70), 0, 0, 69, 69), (0, 0, 4, 4)),
        # 140 x 70 is halved and stands 17 px from the left: (17 + 17.75) / 14 - 0.5.
        (block_mask((140, 70), 34, 35, 104, 35), (17.25 / 14 - 0.5, 34.75 / 14 - 0.5,
                                                  52.25 / 14 - 0.5, 34.75 / 14 - 0.5)),
    ],
)  # fmt: skip
def test_roi_is_the_reference_mask_s_box_in_tokens(mask: np.ndarray, expected: tuple[float, ...]):
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)], [mask])
    batch, _, _ = make_batch(case, PAPER, SIZES, bucket=1, seed=0)
    np.testing.assert_allclose(batch.roi[0, 0], np.clip(expected, 0, 4), atol=1e-6)


def test_roi_points_at_the_pixels_that_count():
    # A ramp of token numbers, sampled at the roi's ends, shows the pixels of the mask's ends.
    mask = block_mask((100, 60), 20, 15, 79, 44)
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)], [mask])
    batch, _, _ = make_batch(case, PAPER, SIZES, bucket=1, seed=0)
    shown = (batch.reference_pixels[0, 0] * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)) * 255
    inside = (shown < 254).any(axis=-1)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    seen = np.array([rows[0], columns[0], rows[-1], columns[-1]])
    np.testing.assert_allclose(batch.roi[0, 0], (seen + 0.5) / 14 - 0.5, atol=1.5 / 14)


@pytest.mark.parametrize("kind", ["sketch", "reference"])
def test_masks_that_never_reach_the_threshold(kind: str):
    faint = np.where(block_mask((61, 83), 5, 5, 30, 30), 1, 0).astype(np.uint8)
    whole = np.full((61, 83), 255, np.uint8)
    case = make_case([faint], [whole]) if kind == "sketch" else make_case([whole], [faint])
    with pytest.raises(CaseError, match=f"got {kind} mask 1 with a largest value of 1"):
        make_batch(case, PAPER, SIZES, bucket=1, seed=0)
    recipe = Recipe(mask_threshold=0)
    assert make_batch(case, recipe, SIZES, bucket=1, seed=0).batch.valid.all()


def test_bucket_smaller_than_the_case():
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)] * 3)
    with pytest.raises(ValueError, match="expected at least 3, got 2; use bucket_of"):
        make_batch(case, PAPER, SIZES, bucket=2, seed=0)


def test_same_seed_same_batch_alone_or_padded():
    case = make_case([block_mask((61, 83), 5, 5, 30, 30), block_mask((61, 83), 35, 40, 55, 80)])
    small, again = (make_batch(case, PAPER, SIZES, bucket=2, seed=7).batch for _ in range(2))
    large = make_batch(case, PAPER, SIZES, bucket=8, seed=7).batch
    for ours, padded in zip(pad_instances(small, 8), large, strict=True):
        np.testing.assert_array_equal(ours, padded)
    for name in small._fields:
        value = getattr(small, name)
        np.testing.assert_array_equal(value, getattr(again, name))
        padded = getattr(large, name)
        if name in ("boxes", "roi", "valid", "reference_pixels"):
            padded = padded[:, :2]
        np.testing.assert_array_equal(value, padded)


def test_stack():
    cases = [make_case([block_mask((61, 83), 5, 5, 30, 30 + i)]) for i in range(3)]
    batches = [make_batch(case, PAPER, SIZES, bucket=1, seed=0).batch for case in cases]
    stacked = stack(batches)
    for name in stacked._fields:
        for index, batch in enumerate(batches):
            np.testing.assert_array_equal(getattr(stacked, name)[index], getattr(batch, name)[0])


def test_stack_refuses_mixed_shapes():
    case = make_case([block_mask((61, 83), 5, 5, 30, 30)])
    batches = [make_batch(case, PAPER, SIZES, bucket=k, seed=0).batch for k in (1, 2)]
    with pytest.raises(ValueError, match="one page size and one bucket"):
        stack(batches)
    with pytest.raises(ValueError, match="expected equal shapes, got none"):
        stack([])


def test_a_picture_file_s_transparency_reaches_every_input(tmp_path: Path):
    folder = write_our_case(tmp_path / "case", count=1)
    (folder / "reference_masks/1.png").unlink()
    alpha = block_mask((37, 53), 9, 13, 27, 39)
    save(folder / "references/1.png", np.dstack([np.full((37, 53, 3), 90, np.uint8), alpha]))
    batch, _, _ = make_batch(read_case(folder), PAPER, SIZES, bucket=1, seed=0)
    assert 85 < (np.median(batch.canvas[0, :60, :60]) + 1) * 127.5 < 95
    assert cv2.countNonZero((batch.canvas[0, ..., 0] > -1).astype(np.uint8)) == 128 * 90


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_examples_are_whole():
    cases = {path.name: read_case(path) for path in find_cases([EXAMPLES, CASES])}
    assert {name: (case.layout, len(case.references)) for name, case in cases.items()} == {
        "concert_36_release": ("release", 2),
        "concert_36": ("magiccolor", 2),
        "dice_20": ("magiccolor", 4),
        "renpy_33": ("magiccolor", 3),
        "streamline_08": ("magiccolor", 5),
    }
    for name, case in cases.items():
        recipe = RELEASE if name.endswith("release") else PAPER
        bucket = bucket_of(len(case.references))
        prepared = make_batch(case, recipe, SIZES, bucket=bucket, seed=0)
        assert prepared.notes == () and (case.path / "LICENSE.txt").is_file()
    files = (file for folder in (EXAMPLES, CASES) for file in folder.rglob("*"))
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert size < 3e6


def test_overlapping_masks_are_noted():
    masks = [block_mask((128, 128), 10, 10, 90, 90), block_mask((128, 128), 80, 80, 99, 99)]
    notes = make_batch(make_case(masks), PAPER, SIZES, bucket=2, seed=0).notes
    assert notes == ("sketch masks overlap in 121 pixels; the higher id owns them",)


def test_a_page_on_which_nothing_is_left_to_colour_is_refused():
    """One pixel of 2000: it vanishes when the page is brought to 128."""
    dot = block_mask((2000, 2000), 999, 999, 999, 999)
    with pytest.raises(CaseError, match="shows at least one instance.*128 x 128 page"):
        make_batch(make_case([dot]), PAPER, SIZES, bucket=1, seed=0)


@pytest.mark.parametrize("scale", ["larger", "square"])
@pytest.mark.parametrize("canvas_fit", ["release", "all"])
def test_the_releases_masks_may_have_a_size_of_their_own(
    tmp_path: Path, canvas_fit: str, scale: str
):
    """Its 512 px masks of pictures of any size: each is squeezed by itself."""
    folder = write_release_case(tmp_path / "case", count=1)
    recipe = dataclasses.replace(RELEASE, canvas_fit=canvas_fit, mirror_canvas=0.0)
    same = make_batch(read_case(folder), recipe, SIZES, bucket=1, seed=0)
    mask = block_mask(REFERENCE_SHAPES[0], 4, 7, 30, 33)
    size = (96, 96) if scale == "square" else tuple(3 * s for s in REFERENCE_SHAPES[0])
    save(folder / "masks/mask_1.png", cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST))
    case = read_case(folder)
    assert case.reference_masks[0].shape == size
    other = make_batch(case, recipe, SIZES, bucket=1, seed=0)
    assert np.abs(other.batch.boxes - same.batch.boxes).max() <= 4
    # A box that rounds to a neighbouring pixel shifts the noise; another crop would differ by 0.67.
    assert np.abs(other.batch.canvas - same.batch.canvas).mean() < 0.45
