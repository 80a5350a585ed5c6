"""The collage: placement against trying every pixel, pixels against release.md §3 step by step."""

import cv2
import numpy as np
import pytest
from oracles.case_folders import block_mask, noise
from PIL import Image

from magiccolor_jax.data import canvas as canvases
from magiccolor_jax.data.transforms import Rectangle
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

PAPER, RELEASE = Recipe.paper(), Recipe.release()
SIZES = Sizes(page=128, canvas=128)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def naive_spot(height: int, width: int, taken: np.ndarray) -> tuple[int, int] | None:
    """Tries every pixel in raster order."""
    for top in range(taken.shape[0] - height + 1):
        for left in range(taken.shape[1] - width + 1):
            if not taken[top : top + height, left : left + width].any():
                return top, left
    return None


@pytest.mark.parametrize("seed", range(12))
def test_first_free_spot_is_the_naive_one(seed: int):
    draw, side = rng(seed), 48
    placed: list[Rectangle] = []
    taken = np.zeros((side, side), bool)
    refused = 0
    for _ in range(25):
        height, width = (int(draw.integers(1, 22)) for _ in range(2))
        spot = canvases.first_free_spot(height, width, placed, side)
        assert spot == naive_spot(height, width, taken)
        if spot is None:
            refused += 1
        else:
            placed.append(Rectangle(*spot, height, width))
            taken[placed[-1].slices] = True
    assert refused > 0 and len(placed) > 5


def test_first_free_spot_beside_scattered_rectangles():
    draw, side = rng(1), 40
    for _ in range(200):
        placed = [Rectangle(*map(int, draw.integers(0, 30, 2)), *map(int, draw.integers(1, 10, 2)))
                  for _ in range(6)]  # fmt: skip
        taken = np.zeros((side, side), bool)
        for rectangle in placed:
            taken[rectangle.slices] = True
        height, width = map(int, draw.integers(1, 30, 2))
        assert canvases.first_free_spot(height, width, placed, side) == naive_spot(
            height, width, taken
        )


@pytest.mark.parametrize(
    ("count", "side", "places"),
    [(5, 256, 4), (10, 150, 9), (1, 512, 1), (2, 512, 1)],
)
def test_squares_on_the_release_canvas(count: int, side: int, places: int):
    rectangles = canvases.lay_out([(100, 100)] * count, side, 512)
    assert [r is not None for r in rectangles] == [True] * places + [False] * (count - places)
    row = 512 // side
    for index, rectangle in enumerate(rectangles[:places]):
        assert rectangle == (side * (index // row), side * (index % row), side, side)


def test_a_smaller_crop_still_finds_a_place_after_one_that_does_not():
    rectangles = canvases.lay_out([(10, 10), (10, 10), (2, 10)], 70, 100)
    assert rectangles == ((0, 0, 70, 70), None, (70, 0, 14, 70))


@pytest.mark.parametrize(("shape", "side"), [((300, 120), 256), ((49, 49), 256), ((7, 400), 150)])
def test_scaled_rounds_as_the_release(shape: tuple[int, int], side: int):
    ratio = side / max(shape)
    assert canvases.scaled(shape, side) == (int(shape[0] * ratio), int(shape[1] * ratio))


def test_a_sliver_keeps_one_pixel():
    assert canvases.scaled((1, 500), 150) == (1, 150)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 16])
def test_lay_out_all_is_the_largest_side_that_fits(count: int):
    shapes = [tuple(map(int, rng(count + i).integers(5, 90, 2))) for i in range(count)]
    rectangles = canvases.lay_out_all(shapes, 96)
    side = next(s for s in range(96, 0, -1) if None not in canvases.lay_out(shapes, s, 96))
    assert rectangles == canvases.lay_out(shapes, side, 96)
    taken = np.zeros((96, 96), int)
    for shape, rectangle in zip(shapes, rectangles, strict=True):
        assert rectangle is not None and rectangle[2:] == canvases.scaled(shape, side)
        taken[rectangle.slices] += 1
    assert taken.max() == 1 and taken.sum() == sum(r.height * r.width for r in rectangles if r)


def test_lay_out_all_refuses_the_impossible():
    with pytest.raises(ValueError, match="expected 5 crops"):
        canvases.lay_out_all([(3, 3)] * 5, 2)


def release_oracle(
    references: list[np.ndarray], masks: list[np.ndarray]
) -> tuple[np.ndarray, list[tuple[int, ...] | None]]:
    """release.md §3, one sentence after another, on a 128 px canvas with crops of 64 or 37 px."""
    side = 64 if len(references) <= 5 else 150 * 128 // 512
    collage, taken = np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), bool)
    rectangles: list[tuple[int, ...] | None] = []
    for reference, mask in zip(references, masks, strict=True):
        picture = np.array(Image.fromarray(reference).resize((128, 128)))
        rows, columns = np.where(np.array(Image.fromarray(mask).resize((128, 128))) > 0)
        crop = picture[rows.min() : rows.max(), columns.min() : columns.max()]
        if crop.max() > crop.min():
            stretched = (crop - crop.min()) / (crop.max() - crop.min())
            crop = (stretched * 255).astype(np.uint8)
        ratio = side / max(crop.shape)
        height, width = int(crop.shape[0] * ratio), int(crop.shape[1] * ratio)
        spot = naive_spot(height, width, taken)
        if spot is None:
            rectangles.append(None)
            continue
        window = (slice(spot[0], spot[0] + height), slice(spot[1], spot[1] + width))
        collage[window] = cv2.resize(crop, (width, height))
        taken[window] = True
        rectangles.append((*spot, height, width))
    return collage, rectangles


@pytest.mark.parametrize("count", [1, 3, 5, 6, 11])
def test_release_canvas_pixel_for_pixel(count: int):
    draw = rng(count)
    references, masks = [], []
    for index in range(count):
        height, width = map(int, draw.integers(50, 200, 2))
        references.append(noise((height, width, 3), index) // 2 + 30)
        top, left = int(draw.integers(0, 12)), int(draw.integers(0, 12))
        masks.append(block_mask((height, width), top, left, height - 9, width - 20))
    expected, rectangles = release_oracle(references, masks)
    assert (None in rectangles) == (count in (5, 11))
    recipe = Recipe.from_json({**Recipe.release().__dict__, "mirror_canvas": 0.0})
    canvas = canvases.make_canvas(references, masks, recipe, SIZES, rng())
    assert list(canvas.rectangles) == rectangles
    np.testing.assert_array_equal(np.rint((canvas.pixels + 1) * 127.5), expected)


def test_flat_crop_stays_as_it_is():
    flat = np.full((60, 60, 3), 77, np.uint8)
    canvas = canvases.make_canvas([flat], [np.full((60, 60), 255, np.uint8)], RELEASE, SIZES, rng())
    assert set(np.unique(np.rint((canvas.pixels + 1) * 127.5))) == {0, 77}


@pytest.mark.parametrize(
    "mask",
    [
        block_mask((128, 128), 5, 60, 90, 60),  # its box loses its only column
        block_mask((2000, 2000), 50, 60, 50, 60) // 200,  # gone after the resize
    ],
)
def test_release_leaves_out_what_has_no_extent(mask: np.ndarray):
    picture = noise((*mask.shape, 3))
    canvas = canvases.make_canvas([picture], [mask], RELEASE, SIZES, rng())
    assert canvas.rectangles == (None,) and (canvas.pixels == -1).all()


def test_all_refuses_an_empty_mask():
    picture, mask = noise((9, 9, 3)), np.zeros((9, 9), np.uint8)
    with pytest.raises(ValueError, match=r"at least one pixel .* got crops of \[\(0, 0\)\]"):
        canvases.make_canvas([picture], [mask], PAPER, SIZES, rng())


def test_all_shows_what_counts_and_only_that():
    picture = np.full((50, 80, 3), 200, np.uint8)
    mask = block_mask((50, 80), 10, 20, 41, 51)
    mask[10:26, 20:36] = 0
    canvas = canvases.make_canvas([picture], [mask], PAPER, SIZES, rng())
    assert canvas.rectangles == ((0, 0, 128, 128),)
    shown = (canvas.pixels + 1) * 127.5
    np.testing.assert_allclose(shown[:52, :52], 0, atol=1e-3)
    np.testing.assert_allclose(shown[76:, :], 200, atol=1e-3)
    np.testing.assert_allclose(shown[:, 76:], 200, atol=1e-3)


def test_all_includes_the_last_row_and_column_and_does_not_alias():
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[::2] = 255
    mask = block_mask((256, 256), 0, 0, 255, 255)
    canvas = canvases.make_canvas([picture], [mask], PAPER, Sizes(page=64, canvas=64), rng())
    np.testing.assert_allclose((canvas.pixels + 1) * 127.5, 127.5, atol=1e-3)


def test_stretch_is_joint_over_channels():
    recipe = Recipe(crop_stretch=True)
    picture = np.dstack([np.full((8, 8), v, np.uint8) for v in (50, 100, 150)])
    canvas = canvases.make_canvas([picture], [np.full((8, 8), 255, np.uint8)], recipe, SIZES, rng())
    np.testing.assert_allclose((canvas.pixels[64, 64] + 1) * 127.5, (0, 127, 255), atol=1e-3)


def test_mirror_turns_the_canvas_but_not_the_rectangles():
    picture, mask = noise((40, 30, 3)), np.full((40, 30), 255, np.uint8)
    plain, mirrored = (
        canvases.make_canvas([picture], [mask], Recipe(mirror_canvas=p), SIZES, rng())
        for p in (0.0, 1.0)
    )
    np.testing.assert_array_equal(plain.pixels[:, ::-1], mirrored.pixels)
    assert plain.rectangles == mirrored.rectangles


def test_mirror_is_drawn_from_the_seed():
    picture, mask = noise((40, 30, 3)), np.full((40, 30), 255, np.uint8)
    args = ([picture], [mask], Recipe(mirror_canvas=0.1), Sizes(page=64, canvas=64))
    plain = canvases.make_canvas(*args[:2], PAPER, args[3], rng()).pixels
    mirrored = [
        not np.array_equal(canvases.make_canvas(*args, rng(seed)).pixels, plain)
        for seed in range(200)
    ]
    assert 8 <= sum(mirrored) <= 34
    assert mirrored[:20] == [rng(seed).random() < 0.1 for seed in range(20)]
