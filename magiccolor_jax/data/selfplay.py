"""Self-play: a reference of an instance made from the page's own instance.

The target is the truth that the reference must lead to, so the reference is changed until it can
no longer be copied pixel by pixel: it moves, bends, loses parts and is shuffled (MangaNinja,
arXiv:2501.08332). Every transformation is a function (reference, rng, strength...) -> reference.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from magiccolor_jax.data.cases import MASK_MIDDLE
from magiccolor_jax.data.checks import check_range
from magiccolor_jax.data.transforms import WHITE, Mask, Picture, Rectangle, mask_box, resize

KNOTS = 4
"""Control points of a warp along one side."""

OVERSHOOT = 2
"""Bound of a warp's largest displacement over that of its control points (1.69 on 4 x 4 knots)."""

MOST_BEND = 0.05
"""Largest `bend` that cannot fold: the warp's slopes stay below 9.3 times it, so below 1/2."""

LONGEST = 3.0
"""Largest ratio of the two sides of what is occluded."""

CROPS = 8
"""Windows that are tried."""


class Reference(NamedTuple):
    """A picture of an instance on white; at least one pixel counts."""

    picture: UInt8[np.ndarray, "h w 3"]
    """White outside of the mask."""
    mask: UInt8[np.ndarray, "h w"]
    """255 where a pixel counts, else 0."""


@dataclass(frozen=True, kw_only=True)
class SelfPlay:
    """How far a reference departs from its instance: each change's probability and strength."""

    crop: float = 0.3
    """Probability that only a part of the instance's box is shown."""
    window: tuple[float, float] = (0.6, 1.0)
    """Range of that part's sides, as shares of the box's."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    rotate: float = 0.5
    """Probability of a rotation."""
    degrees: tuple[float, float] = (-30.0, 30.0)
    """Range of the rotation, counter-clockwise."""
    rescale: float = 0.5
    """Probability of another resolution."""
    factor: tuple[float, float] = (0.5, 1.25)
    """Range of the factor on both sides."""
    warp: float = 0.5
    """Probability of a thin-plate-spline warp."""
    bend: float = 0.04
    """Largest displacement of the warp's control points, as a share of each side."""
    occlude: float = 0.3
    """Probability that a rectangle or an ellipse of the instance is hidden."""
    hidden: float = 0.4
    """Largest share of the instance's pixels that is hidden; below 1."""
    margin: float = 0.05
    """White around the instance's box, as a share of the box's longer side."""
    shuffle: float = 0.5
    """Probability of cutting the reference into patches and permuting them."""
    patches: tuple[int, int] = (2, 8)
    """Range of the number of patches along one side, ends included."""
    jitter: float = 0.5
    """Probability of another brightness and contrast."""
    brightness: float = 0.08
    """Largest shift of brightness, as a share of the whole range."""
    contrast: float = 0.15
    """Largest change of contrast: its factor is within 1 -+ this."""

    def __post_init__(self):
        names = ("crop", "flip", "rotate", "rescale", "warp", "occlude", "jitter", "shuffle")
        for name in names:
            check_range(f"SelfPlay.{name}", getattr(self, name), 0, 1)
        if not all(isinstance(end, int) for end in self.patches):
            raise ValueError(f"SelfPlay.patches: expected whole numbers, got {self.patches}")
        check_range("SelfPlay.window", self.window, 0.1, 1)
        check_range("SelfPlay.degrees", self.degrees, -180, 180)
        check_range("SelfPlay.factor", self.factor, 0.01, 100)
        check_range("SelfPlay.bend", self.bend, 0, MOST_BEND)
        check_range("SelfPlay.hidden", self.hidden, 0, 0.99)
        check_range("SelfPlay.margin", self.margin, 0, 10)
        check_range("SelfPlay.brightness", self.brightness, 0, 1)
        check_range("SelfPlay.contrast", self.contrast, 0, 1)
        check_range("SelfPlay.patches", self.patches, 1, 64)

    @classmethod
    def off(cls) -> "SelfPlay":
        """The instance's own box, unchanged."""
        return cls(
            crop=0.0,
            flip=0.0,
            rotate=0.0,
            rescale=0.0,
            warp=0.0,
            occlude=0.0,
            margin=0.0,
            jitter=0.0,
            shuffle=0.0,
        )


def make_reference(
    picture: Picture, mask: Mask, config: SelfPlay, rng: np.random.Generator
) -> Reference:
    """Cuts an instance out and plays with it: `play`, of which it takes and raises the same."""
    return play(picture, mask, config, rng).reference


class Played(NamedTuple):
    """A reference, and what it would be in true colours."""

    reference: Reference
    truth: UInt8[np.ndarray, "h w 3"]
    """Before the jitter of brightness and contrast."""


def play(
    picture: Picture,
    mask: Mask,
    config: SelfPlay,
    rng: np.random.Generator,
    *,
    disguise: bool = False,
) -> Played:
    """Cuts an instance out and plays with it, in the order of the fields of `SelfPlay`.

    Args:
        mask: of the instance, 0..255; counts where it is above 127.
        disguise: turn, bend or shuffle in any case, by one of those that are not switched off: the
            picture is the answer's own.

    Raises:
        ValueError: no pixel of the mask counts.
    """
    counts = mask > MASK_MIDDLE
    if not counts.any():
        raise ValueError(
            "make_reference: an instance has a pixel: expected a mask with values above "
            f"{MASK_MIDDLE}, got at most {mask.max(initial=0)}; leave such instances out"
        )
    steps: list[tuple[float, Any, tuple[Any, ...]]] = [
        (config.crop, crop, (config.window,)),
        (config.flip, flip, ()),
        (config.rotate, rotate, (config.degrees,)),
        (config.rescale, rescale, (config.factor,)),
        (config.warp, warp, (config.bend,)),
        (config.occlude, occlude, (config.hidden,)),
        (1.0, frame, (config.margin,)),
        (config.shuffle, shuffle, (config.patches,)),
    ]
    happens = [rng.random() < probability for probability, _, _ in steps]
    disguises = (rotate, warp, shuffle)  # no pixel can be copied after these
    able = [i for i, (chance, change, _) in enumerate(steps) if chance and change in disguises]
    if disguise and able and not any(happens[number] for number in able):
        happens[int(rng.choice(able))] = True
    reference = _trim(_paint(picture, mask))
    for yes, (_, change, strength) in zip(happens, steps, strict=True):
        if yes:
            reference = change(reference, rng, *strength)
    truth = reference.picture
    if rng.random() < config.jitter:
        reference = jitter(reference, rng, config.brightness, config.contrast)
    return Played(reference, truth)


def crop(reference: Reference, rng: np.random.Generator, window: tuple[float, float]) -> Reference:
    """A window of the picture that holds at least half of the mask; all of it where none is found.

    Args:
        window: range of its sides, as shares of the picture's.
    """
    shape, pixels = reference.mask.shape, np.count_nonzero(reference.mask)
    for _ in range(CROPS):
        height, width = (max(1, round(side * rng.uniform(*window))) for side in shape)
        top = int(rng.integers(shape[0] - height + 1))
        left = int(rng.integers(shape[1] - width + 1))
        at = slice(top, top + height), slice(left, left + width)
        if 2 * np.count_nonzero(reference.mask[at]) >= pixels:
            return _trim(Reference(reference.picture[at], reference.mask[at]))
    return reference


def flip(reference: Reference, rng: np.random.Generator) -> Reference:
    """Mirrors left and right; nothing is drawn."""
    picture, mask = (np.ascontiguousarray(array[:, ::-1]) for array in reference)
    return Reference(picture, mask)


def rotate(
    reference: Reference, rng: np.random.Generator, degrees: tuple[float, float]
) -> Reference:
    """Turns the picture on a canvas large enough for all of it, and cuts that to the mask's box.

    Args:
        degrees: range of the angle, counter-clockwise.
    """
    height, width = reference.mask.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, rng.uniform(*degrees), 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    rows = math.ceil(height * cosine + width * sine) + 1
    columns = math.ceil(width * cosine + height * sine) + 1
    matrix[:, 2] += (columns - 1) / 2 - centre[0], (rows - 1) / 2 - centre[1]

    def turned(array: np.ndarray, ground: int) -> np.ndarray:
        size, value = (columns, rows), (ground,) * 3
        return cv2.warpAffine(array, matrix, size, flags=cv2.INTER_LINEAR, borderValue=value)

    return _cut(turned(reference.picture, WHITE), turned(reference.mask, 0), reference)


def rescale(
    reference: Reference, rng: np.random.Generator, factor: tuple[float, float]
) -> Reference:
    """Another resolution, at the same proportions.

    Args:
        factor: range of the factor on both sides; its logarithm is uniform.
    """
    scale = math.exp(rng.uniform(*np.log(factor)))
    height, width = (max(1, round(side * scale)) for side in reference.mask.shape)
    picture, mask = (np.rint(resize(array, height, width)) for array in reference)
    return _cut(picture.astype(np.uint8), mask, reference)


def warp(reference: Reference, rng: np.random.Generator, bend: float) -> Reference:
    """Bends the picture by a random thin-plate spline; what bends outwards is not cut off.

    Args:
        bend: largest displacement of a control point, as a share of each side; at most 0.05.
    """
    height, width = reference.mask.shape
    rows, columns = (math.ceil(OVERSHOOT * bend * side) for side in (height, width))
    padded = _pad(reference, (rows, rows), (columns, columns))
    knots = rng.uniform(-bend, bend, (KNOTS * KNOTS, 2)) * (height, width)
    shift = thin_plate_spline(knots, padded.mask.shape)  # [h w 2], output pixel to source
    y, x = np.indices(padded.mask.shape, np.float32)

    def bent(array: np.ndarray, ground: int) -> np.ndarray:
        source, value = (x + shift[..., 1], y + shift[..., 0]), (ground,) * 3
        return cv2.remap(array, *source, cv2.INTER_LINEAR, borderValue=value)

    return _cut(bent(padded.picture, WHITE), bent(padded.mask, 0), reference)


def occlude(reference: Reference, rng: np.random.Generator, hidden: float) -> Reference:
    """Hides a rectangle or an ellipse around a random pixel of the instance.

    Args:
        hidden: no more than this share of the mask's pixels, below 1, are hidden.
    """
    y, x = np.nonzero(reference.mask)
    centre = rng.integers(len(y))
    ratio = math.exp(rng.uniform(-1, 1) * math.log(LONGEST) / 2)
    sides = np.abs(y - y[centre]) * ratio, np.abs(x - x[centre]) / ratio
    distance = np.maximum(*sides) if rng.random() < 0.5 else np.hypot(*sides)
    # The nearest so many pixels, or fewer where several are equally far.
    most = int(rng.uniform(0, hidden) * len(y))
    near = distance < np.partition(distance, most)[most]
    mask = reference.mask.copy()
    mask[y[near], x[near]] = 0
    return _paint(reference.picture, mask)


def frame(reference: Reference, rng: np.random.Generator, margin: float) -> Reference:
    """Cuts to the mask's box and lays white around it; nothing is drawn.

    Args:
        margin: width of the white, as a share of the box's longer side.
    """
    trimmed = _trim(reference)
    width = round(margin * max(trimmed.mask.shape))
    return _pad(trimmed, (width, width), (width, width))


def jitter(
    reference: Reference, rng: np.random.Generator, brightness: float, contrast: float
) -> Reference:
    """Another brightness and contrast (about middle grey) of the instance.

    Args:
        brightness: largest shift, as a share of the whole range.
        contrast: the factor is within 1 -+ this.
    """
    gain, shift = 1 + rng.uniform(-contrast, contrast), rng.uniform(-brightness, brightness)
    levels = (np.arange(256) / WHITE - 0.5) * gain + 0.5 + shift
    table = np.rint(np.clip(levels, 0, 1) * WHITE).astype(np.uint8)
    return _paint(table[reference.picture], reference.mask)


def shuffle(reference: Reference, rng: np.random.Generator, patches: tuple[int, int]) -> Reference:
    """Cuts picture and mask into n x n patches of one size, white added below and at the right
    where it does not divide, and permutes them.

    Args:
        patches: range of n, ends included.
    """
    n = int(rng.integers(patches[0], patches[1], endpoint=True))
    rows, columns = (-side % n for side in reference.mask.shape)
    order = rng.permutation(n * n)
    while n > 1 and (order == np.arange(n * n)).all():  # one in 24 where n is 2
        order = rng.permutation(n * n)

    def shuffled(array: np.ndarray) -> np.ndarray:
        height, width = array.shape[0] // n, array.shape[1] // n
        grid = array.reshape(n, height, n, width, -1).swapaxes(1, 2)
        cut = grid.reshape(n * n, height, width, -1)[order].reshape(grid.shape)
        return cut.swapaxes(1, 2).reshape(array.shape)

    picture, mask = (shuffled(array) for array in _pad(reference, (0, rows), (0, columns)))
    return Reference(picture, mask)


def thin_plate_spline(
    knots: Float[np.ndarray, "k c"], shape: tuple[int, int]
) -> Float[np.ndarray, "h w c"]:
    """The smoothest field through values on a square grid: the one of least bending energy.

    Bookstein (1989): f(p) = a + b·p + Σ w_i U(|p - p_i|), U(r) = r² log r², with Σ w_i = 0 and
    Σ w_i p_i = 0. The picture is taken as the unit square.

    Args:
        knots: values at the grid's points, row by row; the outermost stand at the picture's
            outermost pixel edges.
        shape: height and width of the field.
    """
    side = math.isqrt(len(knots))
    points = _grid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    affine = np.concatenate([np.ones((len(points), 1)), points], axis=1)  # [k 3]
    system = np.block([[_bending(points, points), affine], [affine.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.concatenate([knots, np.zeros((3, knots.shape[1]))]))
    pixels = _grid(*((np.arange(n, dtype=np.float32) + 0.5) / n for n in shape))
    field = _bending(pixels, points.astype(np.float32)) @ weights[:-3].astype(np.float32)
    field += pixels @ weights[-2:].astype(np.float32) + weights[-3].astype(np.float32)
    return field.reshape(*shape, -1)


def _grid(
    rows: Float[np.ndarray, "h"], columns: Float[np.ndarray, "w"]
) -> Float[np.ndarray, "h*w 2"]:
    """Every pair of a row and a column, row by row."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _bending(
    points: Float[np.ndarray, "n 2"], centres: Float[np.ndarray, "k 2"]
) -> Float[np.ndarray, "n k"]:
    """U(r) = r² log r² for each distance r; 0 at r = 0."""
    squares = sum(np.subtract.outer(points[:, i], centres[:, i]) ** 2 for i in (0, 1))
    return squares * np.log(np.maximum(squares, np.float32(1e-12)))


def _trim(reference: Reference) -> Reference:
    """A reference cut to its mask's box."""
    box = mask_box(reference.mask > 0)
    assert box is not None, "a reference has a pixel that counts"
    top, left, bottom, right = box
    slices = Rectangle(top, left, bottom - top + 1, right - left + 1).slices
    return Reference(reference.picture[slices], reference.mask[slices])


def _pad(reference: Reference, rows: tuple[int, int], columns: tuple[int, int]) -> Reference:
    """White around a reference that does not count: above and below, left and right."""
    picture = np.pad(reference.picture, (rows, columns, (0, 0)), constant_values=WHITE)
    return Reference(picture, np.pad(reference.mask, (rows, columns)))


def _paint(picture: Picture, mask: Float[np.ndarray, "H W"] | Mask) -> Reference:
    """A reference: the mask is thresholded and what does not count painted white."""
    counts = mask > MASK_MIDDLE
    painted = np.where(counts[..., None], picture, np.uint8(WHITE))
    return Reference(painted, np.where(counts, np.uint8(255), np.uint8(0)))


def _cut(picture: Picture, mask: Float[np.ndarray, "H W"] | Mask, before: Reference) -> Reference:
    """What a resampling made, cut to its mask's box; `before` where no pixel of it counts."""
    return _trim(_paint(picture, mask)) if (mask > MASK_MIDDLE).any() else before
