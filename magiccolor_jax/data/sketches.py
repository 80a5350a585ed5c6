"""The one form in which every sketch reaches the network, in training and at inference alike.

A pencil scan on grey paper, a binarised line layer, white chalk on black and a photograph with a
shadow become the same thing: dark lines on white, the paper flat, the lines of about one width.
Training jitters around that form, so that what remains of the differences does not matter.

That happens once the page has the size that the network sees: only there does a width in pixels
mean the same for every page, and there the work does not grow with the scan. (`scan` alone looks at
a sketch at its own size, to lay colours under it.)
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from magiccolor_jax.data.checks import check_range
from magiccolor_jax.data.strokes import Ink, line_width, middles, thicken, thin
from magiccolor_jax.data.transforms import (
    WHITE,
    PageFit,
    Picture,
    place,
    resize,
    sketch_pixels,
    to_signed,
)
from magiccolor_jax.recipe import Recipe

Grey = UInt8[np.ndarray, "H W"]
"""0 is black, 255 white."""

POLARITY_SIDE = 256
"""Longest side of the picture that tells light lines from dark ones."""

FLAT = 1e-6
"""Least skew of the brightness that tells them apart; an empty page has less."""

PAPER_SIDE = 48
"""Longest side of the small picture that the paper's brightness is estimated on."""

PAPER_REACH = 9
"""Side, there, of the window that shows paper somewhere. What is darker over a larger area is taken
for a shadow and becomes white, ..."""

DEEPEST = 0.45
"""... but not below this share of the brightest paper: that is a black area and stays black."""

GRAIN, LEAST_GRAIN, MOST_GRAIN = 4.0, 0.02, 0.1
"""Ink up to that many deviations of the paper's brightness becomes none; never less than a share of
the darkest lines' ink, nor more than a share of the paper's brightness."""

FULL_INK = 0.6
"""Ink that becomes black, as a share of the darkest lines': what antialiasing and a scanner's blur
leave of a thin black line."""

FAINTEST = 0.2
"""Darkest lines fainter than this share of the paper's brightness do not become black."""

DARKEST = 0.995
"""Quantile of the ink that stands for a sketch's darkest lines."""

NOMINAL = 1.5
"""Width of the lines, in pixels of the page as the network sees it."""

THINNER, THICKER = 3.0, 0.5
"""Largest changes of the lines' radius. Lines bolder than 7.5 pixels stay bolder; the finest stay
finer, because hair and eyes that are drawn in them would become black."""


class Normalised(NamedTuple):
    """A sketch in the common form."""

    lines: Grey
    """0 is ink, 255 paper."""
    inverted: bool
    """Whether it was drawn in light lines on a dark ground."""


class Scanned(NamedTuple):
    """A sketch at its own size, told apart from its paper."""

    ink: Float32[np.ndarray, "H W"]
    """0: paper, 1: as dark as the darkest lines."""
    passes: Float32[np.ndarray, "H W 3"]
    """Share of each colour that the lines let through, in their own colour; 1 where paper is."""


@dataclass(frozen=True, kw_only=True)
class SketchJitter:
    """How far a training sketch departs from the common form."""

    thickness: float = 0.5
    """Probability of thinner or thicker lines."""
    grow: tuple[float, float] = (-0.5, 1.0)
    """Range of the change of the lines' radius, in pixels; none gets thinner than 1.5 pixels."""
    gap: float = 0.2
    """Probability of gaps in the lines."""
    lost: float = 0.08
    """Largest share of the page whose lines are lost, in small spots."""
    fade: float = 0.5
    """Probability of fainter lines."""
    faintest: float = 0.4
    """Least share of the ink that is left."""
    grain: float = 0.3
    """Probability of noise."""
    noise: float = 0.06
    """Largest deviation of the noise, as a share of the whole range."""

    def __post_init__(self):
        for name in ("thickness", "gap", "lost", "fade", "faintest", "grain", "noise"):
            check_range(f"SketchJitter.{name}", getattr(self, name), 0, 1)
        check_range("SketchJitter.grow", self.grow, -3, 3)

    @classmethod
    def off(cls) -> "SketchJitter":
        """The common form itself."""
        return cls(thickness=0.0, gap=0.0, fade=0.0, grain=0.0)


def prepare_sketch(
    sketch: Picture,
    fit: PageFit,
    recipe: Recipe,
    jitter: SketchJitter | None,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "h w 3"], bool]:
    """The sketch as the guider sees it, in its bucket, [-1, 1], and whether it was inverted.

    Args:
        jitter: of training; padding stays white.

    Raises:
        ValueError: jitter around a form that the recipe does not ask for.
    """
    if recipe.sketch_polarity == "as_is":
        if jitter is not None:
            raise ValueError(
                "sketch jitter departs from the common form of sketches: expected the recipe's "
                "sketch_polarity='black_on_white', got 'as_is'; train without jitter or change it"
            )
        return sketch_pixels(sketch, fit, recipe), False
    seen = resize(sketch, fit.placed.height, fit.placed.width)
    lines, inverted = normalise_sketch(np.rint(seen).astype(np.uint8))
    if jitter is not None:
        lines = jitter_sketch(lines, jitter, rng)
    return to_signed(place(np.repeat(lines[..., None], 3, axis=-1), fit, WHITE)), inverted


def normalise_sketch(sketch: Picture) -> Normalised:
    """Black lines of one width on flat white, whatever they were drawn with and on.

    Args:
        sketch: at the size at which the network sees it.
    """
    inverted = _is_inverted(cv2.cvtColor(sketch, cv2.COLOR_RGB2GRAY))
    ink = _one_width(_ink(WHITE - sketch if inverted else sketch))
    return Normalised(_lines(ink), inverted)


def scan(sketch: Picture) -> Scanned:
    """Tells a sketch's lines from its paper, whatever they were drawn with and on."""
    dark = WHITE - sketch if _is_inverted(cv2.cvtColor(sketch, cv2.COLOR_RGB2GRAY)) else sketch
    ink, paper = _ink_on_paper(dark)
    passes = np.clip(dark / (WHITE * paper[..., None]), 0, 1)
    return Scanned(ink, np.where(ink[..., None] > 0, passes, 1).astype(np.float32))


def jitter_sketch(lines: Grey, config: SketchJitter, rng: np.random.Generator) -> Grey:
    """A normalised sketch as another hand, pen or scanner would have left it."""
    ink = 1 - lines.astype(np.float32) / WHITE
    if rng.random() < config.thickness:
        radius = rng.uniform(*config.grow)
        ink = thicken(ink, radius) if radius > 0 else thin(ink, -radius, middles(ink))
    if rng.random() < config.gap:
        ink = ink * ~_spots(lines.shape, rng.uniform(0, config.lost), rng)
    if rng.random() < config.fade:
        ink = ink * np.float32(rng.uniform(config.faintest, 1))
    if rng.random() < config.grain:
        noise = rng.standard_normal(ink.shape, np.float32)
        ink = ink + noise * np.float32(rng.uniform(0, config.noise))
    return _lines(ink)


def _is_inverted(grey: Grey) -> bool:
    """Whether the lines are lighter than their ground; an empty dark page counts as such.

    Lines are the lesser part of their neighbourhood, so its brightness is skewed towards them. A
    black area, however large, is no evidence: along its edge, skews of either sign cancel.
    """
    light = _shrunk(grey.astype(np.float32) / WHITE, POLARITY_SIDE)
    side = max(light.shape) // 12 | 1

    def mean(values: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
        return cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)

    first, square, cube = mean(light), mean(light * light), mean(light * light * light)
    skew = float(np.mean(cube - 3 * first * square + 2 * first * first * first))
    return skew > 0 if abs(skew) > FLAT else bool(light.mean() < 0.5)


def _ink(sketch: Picture) -> Ink:
    """How much darker than the paper each pixel is: 0 at its grain, 1 at the darkest lines."""
    return _ink_on_paper(sketch)[0]


def _ink_on_paper(sketch: Picture) -> tuple[Ink, Float32[np.ndarray, "H W"]]:
    """Ink as `_ink` has it, and the paper's brightness under it."""
    # By brightness alone yellow lines would be lost, by their darkest channel alone the light blue
    # of a draft, which is not meant to be seen, would be as dark as they are.
    red, green, blue = cv2.split(sketch)
    channel, grey = cv2.min(cv2.min(red, green), blue), cv2.cvtColor(sketch, cv2.COLOR_RGB2GRAY)
    light = cv2.addWeighted(grey, 0.5 / WHITE, channel, 0.5 / WHITE, 0, dtype=cv2.CV_32F)
    paper = np.maximum(_paper(light), np.float32(1 / WHITE))
    ink = 1 - light / paper
    grain = min(GRAIN * 1.48 * float(np.median(np.abs(ink[::4, ::4]))), MOST_GRAIN)
    inked = ink[ink > max(grain, LEAST_GRAIN)]
    darkest = max(float(np.quantile(inked, DARKEST)), FAINTEST) if inked.size else 1.0
    none = max(grain, LEAST_GRAIN * darkest)
    return np.clip((ink - none) / (FULL_INK * darkest - none), 0, 1), paper


def _paper(light: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Brightness of the paper under each pixel: smooth, and nowhere darker than what is drawn."""
    small = _shrunk(light, PAPER_SIDE)
    brightest, seen = _brightest(small)
    # Without the page's slope: at the edges, the brightest of a slope is brighter than it is there.
    slope = _plane(brightest, seen)
    brightest, seen = _brightest(small / slope)
    # Under a black area the paper is as bright as around it, far inside as on the whole page.
    near, weight = _smooth(brightest * seen), _smooth(seen)
    paper = slope * (near + 1e-3 * np.median(brightest)) / (weight + 1e-3)
    return cv2.resize(paper, light.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _brightest(
    small: Float32[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """The brightest of each neighbourhood, which is paper, and 1 where there is some."""
    # The averages of the small picture are darkened by the lines in them.
    window = np.ones((PAPER_REACH, PAPER_REACH), np.uint8)
    brightest = cv2.morphologyEx(small, cv2.MORPH_CLOSE, window)
    least = DEEPEST * np.quantile(brightest, 0.95)
    return brightest, (brightest >= least).astype(np.float32)


def _plane(
    values: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """The plane that fits best; it falls to no less than a quarter of its mean."""
    rows, columns = (np.linspace(-1, 1, length) for length in values.shape)
    places = np.stack([np.ones(values.shape), *np.meshgrid(rows, columns, indexing="ij")], -1)
    flat, each = places.reshape(-1, 3), weight.reshape(-1, 1)
    factors = np.linalg.lstsq(flat * each, (values * weight).ravel(), rcond=None)[0]
    return np.maximum(places @ factors, max(factors[0] / 4, 1 / WHITE)).astype(np.float32)


def _smooth(values: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """Averages over a neighbourhood of the small picture."""
    return cv2.GaussianBlur(values, (0, 0), PAPER_REACH / 4, borderType=cv2.BORDER_REPLICATE)


def _shrunk(picture: Float32[np.ndarray, "H W"], side: int) -> Float32[np.ndarray, "h w"]:
    """The picture with that longest side, unless it is smaller already."""
    scale = min(1.0, side / max(picture.shape))
    height, width = (max(1, round(length * scale)) for length in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _one_width(ink: Ink) -> Ink:
    """Lines of the nominal width, by one change of radius: bold ones stay bolder than fine."""
    middle = middles(ink)
    width = line_width(ink, middle)
    if width > NOMINAL:
        return thin(ink, min((width - NOMINAL) / 2, THINNER), middle)
    return thicken(ink, min((NOMINAL - width) / 2, THICKER)) if width else ink


def _lines(ink: Ink) -> Grey:
    """Ink, cut off at 0 and 1 -> 8 bits, 255 where there is none."""
    return np.rint((1 - np.clip(ink, 0, 1)) * WHITE).astype(np.uint8)


def _spots(
    shape: tuple[int, int], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "H W"]:
    """True in smooth random spots that cover a share of the page."""
    height, width = shape
    coarse = rng.random((max(2, height // 12), max(2, width // 12)), np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return field > np.quantile(field[::4, ::4], 1 - share)
