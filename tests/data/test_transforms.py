"""Page buckets, masks, reference and CLIP inputs, and the way back."""

import itertools

import cv2
import numpy as np
import pytest
from oracles.case_folders import block_mask, noise
from PIL import Image

from magiccolor_jax.data import transforms
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

PAPER, RELEASE = Recipe.paper(), Recipe.release()
SIZES = Sizes(page=128, canvas=128, reference=70, patch=14, clip=32)
SHAPES = [(61, 83), (512, 512), (1000, 700), (37, 400), (400, 37), (1, 900), (129, 64), (3, 2)]


@pytest.mark.parametrize("page", [64, 128, 192, 512])
def test_buckets(page: int):
    buckets = transforms.page_buckets(page)
    sides = range(64, page * page // 64 + 1, 64)
    allowed = {
        (h, w) for h, w in itertools.product(sides, sides) if h * w <= page**2 and 0.5 <= h / w <= 2
    }
    assert set(buckets) == allowed and (page, page) in buckets


@pytest.mark.parametrize("shape", SHAPES)
def test_page_keeps_its_proportions_and_shows_most(shape: tuple[int, int]):
    fit = transforms.fit_page(shape, PAPER, Sizes())
    placed, bucket = fit.placed, fit.bucket
    assert fit.original == shape
    scale = min(bucket[0] / shape[0], bucket[1] / shape[1])
    assert (placed.height, placed.width) == tuple(max(1, round(side * scale)) for side in shape)
    assert placed.height == bucket[0] or placed.width == bucket[1]
    assert 0 <= placed.top <= bucket[0] - placed.height
    assert abs(2 * placed.top + placed.height - bucket[0]) <= 1
    assert abs(2 * placed.left + placed.width - bucket[1]) <= 1
    for height, width in transforms.page_buckets(512):
        other = min(height / shape[0], width / shape[1])
        assert other <= scale * (1 + 1e-12)
        if abs(other - scale) < 1e-12 * scale:
            assert height * width >= bucket[0] * bucket[1]


@pytest.mark.parametrize(
    ("shape", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((3508, 2480), (576, 448)),
        ((1080, 1920), (384, 640)),
        ((500, 1000), (320, 640)),
        ((100, 9000), (320, 640)),
        ((9000, 100), (640, 320)),
    ],
)
def test_bucket_of_known_pages(shape: tuple[int, int], bucket: tuple[int, int]):
    assert transforms.fit_page(shape, PAPER, Sizes()).bucket == bucket


def test_few_buckets_occur():
    shapes = itertools.product(range(100, 1000, 53), range(100, 1000, 67))
    occurring = {transforms.fit_page(shape, PAPER, Sizes()).bucket for shape in shapes}
    assert len(occurring) <= 10  # each is a compilation


def test_sketch_is_placed_on_white():
    sketch = np.zeros((30, 90, 3), np.uint8)
    fit = transforms.fit_page((30, 90), PAPER, SIZES)
    pixels = transforms.sketch_pixels(sketch, fit, PAPER)
    assert pixels.shape == (*fit.bucket, 3) and pixels.dtype == np.float32
    inside = np.zeros(fit.bucket, bool)
    inside[fit.placed.slices] = True
    assert (pixels[inside] == -1).all() and (pixels[~inside] == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_page_comes_back_at_its_own_size(shape: tuple[int, int]):
    fit = transforms.fit_page(shape, PAPER, SIZES)
    for dtype in (np.uint8, np.float32):
        picture = np.full((*fit.bucket, 3), 7, dtype)
        picture[fit.placed.slices] = (200, 100, 50)
        restored = transforms.restore_page(picture, fit)
        assert restored.shape == (*shape, 3) and restored.dtype == dtype
        np.testing.assert_allclose(
            restored, np.broadcast_to((200, 100, 50), (*shape, 3)), atol=1e-4
        )


@pytest.mark.parametrize("recipe", [PAPER, RELEASE], ids=["aspect", "squeeze512"])
@pytest.mark.parametrize("shape", [(128, 128), (40, 96), (300, 210), (256, 64)])
def test_smooth_page_survives_the_round_trip(recipe: Recipe, shape: tuple[int, int]):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    page = np.stack([rows / shape[0], columns / shape[1], 0 * rows + 0.5], axis=-1) * 255
    page = np.rint(page).astype(np.uint8)
    fit = transforms.fit_page(shape, recipe, SIZES)
    shown = (transforms.sketch_pixels(page, fit, recipe) + 1) * 127.5
    restored = transforms.restore_page(shown, fit)
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(restored[inner] - page[inner]).max() < 2.5
    if shape == fit.bucket:
        np.testing.assert_allclose(restored, page, atol=1e-4)


def test_restore_refuses_another_bucket():
    fit = transforms.fit_page((61, 83), PAPER, SIZES)
    with pytest.raises(ValueError, match="restore_page: a picture has its bucket's size"):
        transforms.restore_page(np.zeros((64, 64, 3), np.uint8), fit)


@pytest.mark.parametrize(("recipe", "least"), [(PAPER, 128), (RELEASE, 1)])
def test_mask_threshold(recipe: Recipe, least: int):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(transforms.mask_counts(values, recipe), values >= least)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_mask_counts_where_more_than_half_of_the_area_does(factor: int):
    fine = noise((128 * factor, 128 * factor)) > 140
    fit = transforms.fit_page(fine.shape, PAPER, SIZES)
    area = fine.reshape(128, factor, 128, factor).mean(axis=(1, 3))
    np.testing.assert_array_equal(transforms.place_mask(fine, fit), area > 0.5)


def test_mask_grows_with_its_page():
    mask = block_mask((32, 64), 8, 16, 15, 31) > 0
    fit = transforms.fit_page((32, 64), PAPER, Sizes(page=192))
    assert fit.placed == (0, 0, 128, 256)
    expected = np.kron(mask, np.ones((4, 4), bool))
    differs = transforms.place_mask(mask, fit) != expected
    assert np.count_nonzero(differs) <= 4  # the four corners are rounded


def test_reference_of_the_paper_is_white_outside_its_mask():
    picture = np.full((40, 20, 3), 10, np.uint8)
    counts = block_mask((40, 20), 20, 0, 39, 9) > 0
    pixels, fit = transforms.reference_pixels(picture, counts, PAPER, SIZES)
    assert fit.placed == (0, 17, 70, 35) and pixels.shape == (70, 70, 3)
    shown = (pixels * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)) * 255
    np.testing.assert_allclose(shown[38:, 19:32], 10, atol=1e-3)
    for white in (shown[:33], shown[:, :17], shown[:, 37:]):
        np.testing.assert_allclose(white, 255, atol=0.1)


def test_reference_of_the_release():
    picture, counts = noise((53, 37, 3)), np.zeros((53, 37), bool)
    pixels, fit = transforms.reference_pixels(picture, counts, RELEASE, SIZES)
    squared = np.array(Image.fromarray(picture).resize((128, 128)))
    expected = cv2.resize(squared, (70, 70)) / 255.0
    expected = (expected - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    assert fit == ((70, 70), (0, 0, 70, 70), (53, 37))


@pytest.mark.parametrize("shape", [(90, 60), (17, 60), (90, 11), (17, 11)])
def test_resize_averages_what_shrinks_and_interpolates_what_grows(shape: tuple[int, int]):
    columns = np.linspace(20, 230, shape[1], dtype=np.float32)
    ramp = np.repeat(np.tile(columns, (shape[0], 1))[..., None], 3, axis=-1)
    out = transforms.resize(ramp, 34, 22)
    assert out.shape == (34, 22, 3)
    assert np.ptp(out, axis=0).max() < 1e-3
    assert (np.diff(out[0, :, 0]) > 0).all()
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 255
    np.testing.assert_allclose(transforms.resize(stripes, 16, 64), 127.5)  # no aliasing
    np.testing.assert_allclose(transforms.resize(stripes, 16, 200), 127.5, atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "box"),
    [
        (block_mask((9, 7), 2, 3, 6, 5) > 0, (2, 3, 6, 5)),
        (np.ones((4, 6), bool), (0, 0, 3, 5)),
        (block_mask((9, 7), 8, 6, 8, 6) > 0, (8, 6, 8, 6)),
        (np.zeros((4, 6), bool), None),
    ],
)
def test_mask_box(pixels: np.ndarray, box: tuple[int, ...] | None):
    assert transforms.mask_box(pixels) == box
