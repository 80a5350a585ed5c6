"""The collage of reference crops that the reference UNet and CLIP see (release.md §3)."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from magiccolor_jax.data.transforms import (
    Picture,
    Rectangle,
    mask_box,
    mask_counts,
    resize,
    stretch,
    to_signed,
)
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

AnyMask = UInt8[np.ndarray, "_ _"]
"""A reference's mask, which in the release's layout has a size of its own."""

RELEASE_SIDES = (256, 150)
"""Longest side of the release's crops on its 512 px canvas: up to `RELEASE_FEW` crops, and more."""

RELEASE_CANVAS = 512
RELEASE_FEW = 5


class Canvas(NamedTuple):
    """The collage and where each crop stands on it."""

    pixels: Float[np.ndarray, "S S 3"]
    """[-1, 1]; black (-1) between the crops."""
    rectangles: tuple[Rectangle | None, ...]
    """Per reference, as placed: a mirrored canvas keeps them unmirrored, as in the release. None
    for a reference that found no place."""


def make_canvas(
    references: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[UInt8[np.ndarray, "_ _"]],
    recipe: Recipe,
    sizes: Sizes,
    rng: np.random.Generator,
) -> Canvas:
    """Crops each reference to its mask's box and lays the crops out without overlap.

    Args:
        masks: of the references, 0..255.
        rng: draws whether the canvas is mirrored.
    """
    pairs = list(zip(references, masks, strict=True))
    if recipe.canvas_fit == "release":
        crops = [_crop_release(picture, mask, recipe, sizes) for picture, mask in pairs]
        side = RELEASE_SIDES[len(crops) > RELEASE_FEW] * sizes.canvas // RELEASE_CANVAS
        rectangles = lay_out([crop.shape[:2] for crop in crops], side, sizes.canvas)
    else:
        crops = [_crop(picture, mask, recipe) for picture, mask in pairs]
        rectangles = lay_out_all([crop.shape[:2] for crop in crops], sizes.canvas)
    pixels = np.zeros((sizes.canvas, sizes.canvas, 3), np.float32)
    for crop, rectangle in zip(crops, rectangles, strict=True):
        if rectangle is not None:
            pixels[rectangle.slices] = _resize_crop(crop, rectangle, recipe)
    if rng.random() < recipe.mirror_canvas:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return Canvas(to_signed(pixels), rectangles)


def lay_out(
    shapes: Sequence[tuple[int, int]], side: int, canvas: int
) -> tuple[Rectangle | None, ...]:
    """Places crops one after another, each at the first free spot in raster order.

    Args:
        shapes: height and width of each crop, scaled here to the longest side `side`.
        canvas: side of the canvas.

    Returns:
        Per crop its rectangle, or None where no spot is free or the crop is empty.
    """
    rectangles: list[Rectangle | None] = []
    for shape in shapes:
        placed = [rectangle for rectangle in rectangles if rectangle is not None]
        height, width = scaled(shape, side)
        spot = first_free_spot(height, width, placed, canvas) if min(shape) > 0 else None
        rectangles.append(None if spot is None else Rectangle(*spot, height, width))
    return tuple(rectangles)


def lay_out_all(shapes: Sequence[tuple[int, int]], canvas: int) -> tuple[Rectangle | None, ...]:
    """`lay_out` at the largest side at which every crop finds a place.

    Raises:
        ValueError: a crop is empty, or there are more crops than pixels.
    """
    for side in range(canvas, 0, -1):
        areas = (height * width for height, width in (scaled(shape, side) for shape in shapes))
        if sum(areas) > canvas**2:
            continue
        # Greedy placement is not monotonic in the side, so every side is tried.
        rectangles = lay_out(shapes, side, canvas)
        if None not in rectangles:
            return rectangles
    raise ValueError(
        f"canvas: every crop needs a place: expected {len(shapes)} crops with at least one pixel "
        f"each on {canvas} x {canvas} pixels, got crops of {list(shapes)}"
    )


def scaled(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of a crop whose longest side becomes `side`, as the release rounds them.

    The ratio is rounded before it is multiplied: a longest side may come out as `side` - 1.
    """
    ratio = side / max(*shape, 1)
    # differs: a sliver keeps one pixel; the release stops with an error.
    return max(1, int(shape[0] * ratio)), max(1, int(shape[1] * ratio))


def first_free_spot(
    height: int, width: int, placed: Sequence[Rectangle], canvas: int
) -> tuple[int, int] | None:
    """Top and left of the first free spot, as trying every pixel in raster order would find it.

    Such a spot can move neither up nor left, so it touches the canvas' edge or a placed rectangle
    on both sides: only those tops and lefts are tried.
    """
    tops = _candidates([r.top + r.height for r in placed], canvas - height)
    lefts = _candidates([r.left + r.width for r in placed], canvas - width)
    free = np.ones((len(tops), len(lefts)), bool)
    for r in placed:
        rows = (tops < r.top + r.height) & (r.top < tops + height)
        columns = (lefts < r.left + r.width) & (r.left < lefts + width)
        free &= ~(rows[:, None] & columns)
    if not free.any():
        return None
    row, column = divmod(int(free.argmax()), len(lefts))
    return int(tops[row]), int(lefts[column])


def _candidates(ends: list[int], last: int) -> np.ndarray:
    """0 and the ends of placed rectangles, ascending, up to the last position that stays inside."""
    positions = np.unique([0, *ends])
    return positions[positions <= last]


def _crop_release(
    picture: Picture, mask: AnyMask, recipe: Recipe, sizes: Sizes
) -> UInt8[np.ndarray, "h w 3"]:
    """The mask's box out of the squeezed reference, its last row and column lost; may be empty."""
    squared = stretch(picture, sizes.page)
    box = mask_box(mask_counts(stretch(mask, sizes.page), recipe))
    if box is None:
        return squared[:0, :0]
    top, left, bottom, right = box
    return _stretch_contrast(squared[top:bottom, left:right], recipe)


def _crop(picture: Picture, mask: AnyMask, recipe: Recipe) -> UInt8[np.ndarray, "h w 3"]:
    """The mask's box out of the reference, black where the mask does not count; may be empty."""
    if mask.shape != picture.shape[:2]:  # in the release's layout
        mask = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    counts = mask_counts(mask, recipe)
    box = mask_box(counts)
    if box is None:
        return picture[:0, :0]
    top, left, bottom, right = box
    inside = slice(top, bottom + 1), slice(left, right + 1)
    # differs: the release shows the whole rectangle, with whatever stands beside the instance.
    return _stretch_contrast(picture[inside], recipe) * counts[inside][..., None]


def _stretch_contrast(crop: Picture, recipe: Recipe) -> Picture:
    """Least value of all channels -> 0, greatest -> 255, truncated."""
    if not recipe.crop_stretch or crop.size == 0:
        return crop
    low, high = int(crop.min()), int(crop.max())
    if low == high:
        return crop  # differs: the release divides by zero
    return ((crop - low) / (high - low) * 255).astype(np.uint8)


def _resize_crop(
    crop: Picture, rectangle: Rectangle, recipe: Recipe
) -> UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"]:
    """A crop at its size on the canvas, 0..255."""
    if recipe.canvas_fit == "release":
        return cv2.resize(crop, (rectangle.width, rectangle.height), interpolation=cv2.INTER_LINEAR)
    return resize(crop, rectangle.height, rectangle.width)
