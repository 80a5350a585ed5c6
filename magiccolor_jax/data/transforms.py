"""Pictures and masks -> what the networks see, and the coloured page back to its own size.

Nothing here knows of cases or batches. `aspect` keeps proportions and pads white; `squeeze512`
repeats the release's pixel operations one by one (release.md §3).
"""

import functools
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import PAGE_MULTIPLE, Sizes

Picture = UInt8[np.ndarray, "H W 3"]
Mask = UInt8[np.ndarray, "H W"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
WHITE = 255


class Rectangle(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle's pixels in an [H W ...] array."""
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top, bottom), slice(self.left, right)


class PageFit(NamedTuple):
    """Where a picture stands in the array that a network sees, and how large it was."""

    bucket: tuple[int, int]
    """Height and width of the array."""
    placed: Rectangle
    """The picture's part of it; the rest is padding."""
    original: tuple[int, int]
    """Height and width of the picture itself."""


def fit_page(shape: tuple[int, int], recipe: Recipe, sizes: Sizes) -> PageFit:
    """Chooses a page's bucket: the one that shows most detail, of those the smallest.

    Args:
        shape: height and width of the sketch. Any proportions fit, by padding.
    """
    if recipe.page_fit == "squeeze512":
        return _fill(shape, sizes.page)

    def merit(bucket: tuple[int, int]) -> tuple[Fraction, int]:
        return _scale(shape, bucket), -bucket[0] * bucket[1]

    return fit_inside(shape, max(page_buckets(sizes.page), key=merit))


@functools.cache
def page_buckets(page: int) -> tuple[tuple[int, int], ...]:
    """All (height, width) in multiples of 64, of area <= page² and proportions 1:2 to 2:1."""
    units = page // PAGE_MULTIPLE
    sides = range(1, units * units + 1)
    pairs = [(h, w) for h in sides for w in sides if h * w <= units**2 and h <= 2 * w <= 4 * h]
    return tuple((h * PAGE_MULTIPLE, w * PAGE_MULTIPLE) for h, w in pairs)


def fit_inside(shape: tuple[int, int], bucket: tuple[int, int]) -> PageFit:
    """The largest placement of a picture, in its own proportions, in the middle of a bucket."""
    scale = _scale(shape, bucket)
    height, width = (max(1, round(side * scale)) for side in shape)
    top, left = (bucket[0] - height) // 2, (bucket[1] - width) // 2
    return PageFit(bucket, Rectangle(top, left, height, width), shape)


def _fill(shape: tuple[int, int], side: int) -> PageFit:
    """A picture stretched over a whole square."""
    return PageFit((side, side), Rectangle(0, 0, side, side), shape)


def _scale(shape: tuple[int, int], bucket: tuple[int, int]) -> Fraction:
    """The exact factor at which a picture just fits into a bucket."""
    return min(Fraction(bucket[0], shape[0]), Fraction(bucket[1], shape[1]))


def sketch_pixels(sketch: Picture, fit: PageFit, recipe: Recipe) -> Float[np.ndarray, "h w 3"]:
    """The sketch as it is, in its bucket, [-1, 1]."""
    if recipe.page_fit == "squeeze512":
        # torch's F.interpolate(bilinear, align_corners=False, antialias=False) does the same.
        return cv2.resize(to_signed(sketch), fit.bucket[::-1], interpolation=cv2.INTER_LINEAR)
    return to_signed(place(sketch, fit, WHITE))


def mask_counts(mask: Mask, recipe: Recipe) -> Bool[np.ndarray, "H W"]:
    """Which pixels of a mask count."""
    return mask > recipe.mask_threshold


def place_mask(mask: Bool[np.ndarray, "H W"], fit: PageFit) -> Bool[np.ndarray, "h w"]:
    """A page's mask in its bucket: a pixel counts when more than half of its area does."""
    return place(mask.astype(np.uint8) * 255, fit, 0) > 127.5


def reference_pixels(
    picture: Picture, counts: Bool[np.ndarray, "h w"], recipe: Recipe, sizes: Sizes
) -> tuple[Float[np.ndarray, "R R 3"], PageFit]:
    """A reference as DINOv2 sees it, ImageNet-normalised, and where it stands in that square.

    Args:
        counts: which part of the reference counts; the rest is painted white (`aspect` only: the
            release shows the whole picture).
    """
    side = sizes.reference
    shape = counts.shape
    if recipe.page_fit == "squeeze512":
        squared = stretch(picture, sizes.page)
        pixels = cv2.resize(squared, (side, side), interpolation=cv2.INTER_LINEAR)
        fit = _fill(shape, side)
    else:
        fit = fit_inside(shape, (side, side))
        pixels = place(np.where(counts[..., None], picture, np.uint8(WHITE)), fit, WHITE)
    return normalise(pixels, IMAGENET_MEAN, IMAGENET_STD), fit


def clip_pixels(canvas: Float[np.ndarray, "S S 3"], sizes: Sizes) -> Float[np.ndarray, "P P 3"]:
    """The canvas, [-1, 1], as CLIP sees it: truncated to 8 bits, PIL bicubic, normalised."""
    truncated = ((canvas + 1) / 2 * 255).astype(np.uint8)
    return normalise(stretch(truncated, sizes.clip), CLIP_MEAN, CLIP_STD)


def restore_page(
    picture: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"], fit: PageFit
) -> UInt8[np.ndarray, "H W 3"] | Float[np.ndarray, "H W 3"]:
    """A coloured bucket, 0..255, back to the sketch's own size: padding cropped, resized.

    Returns:
        The dtype of `picture`, 0..255.

    Raises:
        ValueError: `picture` is not of the bucket's size.
    """
    if picture.shape[:2] != fit.bucket:
        raise ValueError(
            f"restore_page: a picture has its bucket's size: expected {fit.bucket}, "
            f"got {picture.shape[:2]}; pass the PageFit that the page was made with"
        )
    restored = resize(picture[fit.placed.slices], *fit.original)
    whole = np.issubdtype(picture.dtype, np.integer)
    return (np.rint(restored) if whole else restored).astype(picture.dtype)


def place(
    picture: UInt8[np.ndarray, "H W *C"] | Float[np.ndarray, "H W *C"], fit: PageFit, ground: int
) -> Float[np.ndarray, "h w *C"]:
    """A picture resized into its bucket, 0..255, with `ground` around it."""
    placed = np.full((*fit.bucket, *picture.shape[2:]), ground, np.float32)
    placed[fit.placed.slices] = resize(picture, fit.placed.height, fit.placed.width)
    return placed


def resize(
    picture: UInt8[np.ndarray, "H W *C"] | Float[np.ndarray, "H W *C"], height: int, width: int
) -> Float[np.ndarray, "height width *C"]:
    """Antialiased resize, 0..255: an axis that shrinks averages areas, one that grows is cubic."""
    out = np.asarray(picture, np.float32)
    alike = (height <= out.shape[0]) == (width <= out.shape[1])
    steps = [(height, width)] if alike else [(height, out.shape[1]), (height, width)]
    for rows, columns in steps:
        shrinks = rows <= out.shape[0] and columns <= out.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        out = cv2.resize(out, (columns, rows), interpolation=method)
    return np.clip(out, 0, 255)


def stretch(picture: UInt8[np.ndarray, "H W *C"], side: int) -> UInt8[np.ndarray, "S S *C"]:
    """A picture or mask as a square, proportions given up: PIL's antialiased bicubic."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def to_signed(
    picture: UInt8[np.ndarray, "H W 3"] | Float[np.ndarray, "H W 3"],
) -> Float[np.ndarray, "H W 3"]:
    """0..255 -> [-1, 1], in the release's order of f32 operations (CLIP's input truncates it)."""
    return picture.astype(np.float32) / 255 * 2 - 1


def mask_box(counts: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right of a mask's pixels, ends included; None when it has none."""
    rows, columns = np.flatnonzero(counts.any(axis=1)), np.flatnonzero(counts.any(axis=0))
    if rows.size == 0:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


def normalise(
    picture: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[np.ndarray, "H W 3"]:
    """0..255 -> per-channel mean 0 and deviation 1 of a training set."""
    unit = picture.astype(np.float32) / 255
    return (unit - np.array(mean, np.float32)) / np.array(std, np.float32)
