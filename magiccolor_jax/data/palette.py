"""Palette play: one random recolouring of an instance, alike in its target and its references.

Colour can then be learned from the reference only, never from what kind of thing is coloured. All
is done in Oklab (Björn Ottosson, https://bottosson.github.io/posts/oklab): lightness L in [0, 1]
and a chroma vector (a, b), here one complex number a + ib. Its angle is the hue, its length the
chroma, and to multiply it turns the one and scales the other.

A recolouring is linear along every line from grey to a colour, so that the antialiased pixels
between a colour and ink, grey or white move with their colour.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, UInt8

from magiccolor_jax.data.checks import check_range
from magiccolor_jax.data.transforms import Mask, Picture

LMS_OF_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
"""Linear sRGB -> cone responses (Ottosson's M1 times sRGB's primaries)."""

LAB_OF_ROOTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Cube roots of the cone responses -> L, a, b (Ottosson's M2)."""

ROOTS_OF_LAB, RGB_OF_LMS = np.linalg.inv(LAB_OF_ROOTS), np.linalg.inv(LMS_OF_RGB)

GAMUT_TOLERANCE = 1e-4
"""By how much a linear channel may leave [0, 1]: less than half a level of 255."""

GAMUT_HALVINGS = 10
"""Steps in search of the largest chroma inside the gamut: to one thousandth."""

SAMPLE = 2048
"""Most pixels that are looked at to find an instance's hues."""

HUE_GAP = math.radians(45)
"""Smallest angle between the first guesses of two clusters' hues."""

LEAST_SHARE = 0.02
"""Least share of all chroma, HUE_GAP away from other clusters, that makes one of its own: mixed
pixels of an edge do not."""

ROUNDS = 4
"""Rounds of k-means."""

SOFTNESS = 1e-3
"""1 - cosine to a cluster's hue, below which a colour is as good as at its centre: 2.6 degrees."""

TINT_LIGHTNESS = 2.0
"""By how many times its chroma a tint darkens greys and lightens ink: white has room for none."""

TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class PalettePlay:
    """How boldly instances are recoloured."""

    probability: float = 0.75
    """That an instance is recoloured at all."""
    clusters: int = 4
    """Most hues that move each by its own; at least 1."""
    turn: float = 180.0
    """Largest turn of a cluster's hue to either side, in degrees."""
    chroma: tuple[float, float] = (0.6, 1.7)
    """Range of the factor of a cluster's chroma."""
    lightness: float = 0.08
    """Largest shift of a cluster's lightness, at L = 0.5; black and white keep theirs. Below 0.25,
    where a cluster would lose its order of lightness."""
    ink: float = 0.2
    """Lightness up to which a pixel is ink and keeps its colour; from twice as much it is none."""
    neutral: float = 0.02
    """Chroma up to which a pixel is grey or white: it speaks for no hue and keeps its lightness;
    from twice as much it is none."""
    tint: float = 0.3
    """Probability that the ink takes a tint, and the same for the greys."""
    tint_chroma: tuple[float, float] = (0.02, 0.08)
    """Range of a tint's chroma."""

    def __post_init__(self):
        check_range("PalettePlay.probability", self.probability, 0, 1)
        check_range("PalettePlay.clusters", self.clusters, 1, SAMPLE)
        check_range("PalettePlay.turn", self.turn, 0, 180)
        check_range("PalettePlay.chroma", self.chroma, 0.01, 100)
        check_range("PalettePlay.lightness", self.lightness, 0, 0.24)
        check_range("PalettePlay.ink", self.ink, 0.01, 1)
        check_range("PalettePlay.neutral", self.neutral, 0.001, 1)
        check_range("PalettePlay.tint", self.tint, 0, 1)
        check_range("PalettePlay.tint_chroma", self.tint_chroma, 0, 0.4)


class Recolouring(NamedTuple):
    """A smooth map from colour to colour; k hue clusters, at least one."""

    hues: Complex64[np.ndarray, "k"]
    """Centre of each cluster, a chroma vector of length 1."""
    factors: Complex64[np.ndarray, "k"]
    """By what the chroma vectors of each cluster are multiplied."""
    shifts: Float32[np.ndarray, "k"]
    """What each cluster gains in lightness, at L = 0.5."""
    ink_tint: Float32[np.ndarray, "3"]
    """What ink gains in L, a, b."""
    grey_tint: Float32[np.ndarray, "3"]
    """What greys, white among them, gain in L, a, b."""
    ink: float
    """As in `PalettePlay`."""
    neutral: float
    """As in `PalettePlay`."""

    @property
    def is_identity(self) -> bool:
        """Whether every colour stays as it is."""
        gains = self.shifts, self.ink_tint, self.grey_tint
        return bool((self.factors == 1).all()) and not any(gain.any() for gain in gains)


def draw_recolouring(
    pixels: UInt8[np.ndarray, "n 3"], config: PalettePlay, rng: np.random.Generator
) -> Recolouring:
    """Finds the hues of an instance and draws what becomes of each.

    Args:
        pixels: sRGB colours of the instance, in any order; may be empty.
    """
    none = np.zeros(3, np.float32)
    if rng.random() >= config.probability:
        one = np.ones(1, np.complex64)
        return Recolouring(one, one, none[:1], none, none, config.ink, config.neutral)
    if len(pixels) > SAMPLE:
        pixels = pixels[rng.integers(len(pixels), size=SAMPLE)]
    lightness, chromas = _split(srgb_to_oklab(pixels))
    votes = chromas[(lightness > config.ink) & (np.abs(chromas) > config.neutral)]
    hues = _find_hues(votes, config.clusters, rng)
    turns = np.radians(rng.uniform(-config.turn, config.turn, len(hues)))
    low, high = np.log(config.chroma)
    gains = np.exp(rng.uniform(low, high, len(hues)))
    shifts = rng.uniform(-config.lightness, config.lightness, len(hues))
    ink_tint, grey_tint = (
        _draw_tint(sign, config, rng) if rng.random() < config.tint else none for sign in (1, -1)
    )
    factors = (gains * np.exp(1j * turns)).astype(np.complex64)
    shifts = shifts.astype(np.float32)
    return Recolouring(hues, factors, shifts, ink_tint, grey_tint, config.ink, config.neutral)


def recolour(picture: Picture, mask: Mask, recolouring: Recolouring) -> Picture:
    """A picture of the instance in its new colours.

    Args:
        mask: of the instance, 0..255: the share of the new colour. Where it is 0, the picture
            stays as it is.
    """
    if recolouring.is_identity:
        return picture
    counts = mask > 0
    old = picture[counts]
    new = oklab_to_srgb(_map(srgb_to_oklab(old), recolouring))
    share = mask[counts][:, None] / np.float32(255)
    out = picture.copy()
    out[counts] = np.rint(old + share * (new.astype(np.float32) - old))
    return out


def srgb_to_oklab(pixels: UInt8[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """sRGB, 0..255 -> L, a, b."""
    return _apply(LAB_OF_ROOTS, np.cbrt(_apply(LMS_OF_RGB, _LINEAR[pixels])))


def oklab_to_srgb(lab: Float32[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """L, a, b -> sRGB, 0..255; a colour outside of sRGB loses chroma until it fits.

    It keeps its hue and its lightness; L is clipped to [0, 1].
    """
    lab = np.concatenate([np.clip(lab[:, :1], 0, 1), lab[:, 1:]], axis=1)
    linear = _linear_srgb(lab)
    outside = np.flatnonzero(~_fits(linear))
    linear[outside] = _linear_srgb(_reduce_chroma(lab[outside]))
    linear = np.clip(linear, 0, 1)
    curve = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    encoded = np.where(linear <= 0.0031308, np.float32(12.92) * linear, curve)
    return np.rint(encoded * 255).astype(np.uint8)


def _apply(
    matrix: Float64[np.ndarray, "3 3"], colors: Float32[np.ndarray, "n 3"]
) -> Float32[np.ndarray, "n 3"]:
    """The matrix times each colour. Not `@`: for tall and thin arrays BLAS wakes all its threads,
    which wait for cores that are busy with the training."""
    return cv2.transform(colors[:, None], matrix)[:, 0] if len(colors) else colors


def _f32(values: np.ndarray) -> Float32[np.ndarray, "*s"]:
    return values.astype(np.float32)


def _linear_table() -> Float32[np.ndarray, "256"]:
    """Linear light of each sRGB level (IEC 61966-2-1)."""
    encoded = np.arange(256) / 255
    curve = ((encoded + 0.055) / 1.055) ** 2.4
    return _f32(np.where(encoded <= 0.04045, encoded / 12.92, curve))


_LINEAR = _linear_table()


def _linear_srgb(lab: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """L, a, b -> linear sRGB, outside of [0, 1] where the colour is outside of the gamut."""
    return _apply(RGB_OF_LMS, _apply(ROOTS_OF_LAB, lab) ** 3)


def _fits(linear: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Which colours are inside the gamut."""
    red, green, blue = (np.abs(linear - np.float32(0.5)) <= 0.5 + GAMUT_TOLERANCE).T
    return red & green & blue  # ten times as fast as all(axis=1)


def _reduce_chroma(lab: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Colours with the largest share of their chroma that fits, found by halving."""
    share = np.zeros((len(lab), 1), np.float32)
    for step in range(1, GAMUT_HALVINGS + 1):
        more = share + np.float32(0.5**step)
        fits = _fits(_linear_srgb(np.concatenate([lab[:, :1], lab[:, 1:] * more], axis=1)))
        share = np.where(fits[:, None], more, share)
    return np.concatenate([lab[:, :1], lab[:, 1:] * share], axis=1)


def _split(
    lab: Float32[np.ndarray, "n 3"],
) -> tuple[Float32[np.ndarray, "n"], Complex64[np.ndarray, "n"]]:
    """Lightness and chroma vectors."""
    return lab[:, 0], lab[:, 1] + np.complex64(1j) * lab[:, 2]


def _cosines(
    chromas: Complex64[np.ndarray, "n"], hues: Complex64[np.ndarray, "k"]
) -> Float32[np.ndarray, "n k"]:
    """Cosine of the angle between each colour's hue and each centre; 0 for pure grey."""
    directions = chromas / np.maximum(np.abs(chromas), np.float32(TINY))
    return np.outer(directions, hues.conj()).real


def _find_hues(
    chromas: Complex64[np.ndarray, "n"], most: int, rng: np.random.Generator
) -> Complex64[np.ndarray, "k"]:
    """Centres of up to `most` hue clusters: k-means on the circle, each colour weighing its chroma.

    Each first guess is a colour drawn among those far from the earlier ones. Without any colour
    there is one centre, which is as good as any.
    """
    weights = np.abs(chromas)
    least, hues = LEAST_SHARE * weights.sum(), np.empty(0, np.complex64)
    while len(hues) < most and weights.sum() > least:
        drawn = rng.choice(len(chromas), p=weights / weights.sum(dtype=np.float64))
        hues = np.append(hues, chromas[drawn] / np.abs(chromas[drawn]))
        weights = weights * (_cosines(chromas, hues).max(axis=1) < math.cos(HUE_GAP))
    if hues.size == 0:
        return np.ones(1, np.complex64)
    for _ in range(ROUNDS):
        nearest = _cosines(chromas, hues).argmax(axis=1)
        members = nearest[:, None] == np.arange(len(hues))
        sums = chromas @ members + TINY * hues  # a cluster that is empty stays where it was
        hues = (sums / np.abs(sums)).astype(np.complex64)
    return hues


def _draw_tint(
    sign: int, config: PalettePlay, rng: np.random.Generator
) -> Float32[np.ndarray, "3"]:
    """What a tint adds to L, a, b; lighter where `sign` is 1, darker where it is -1."""
    chroma, hue = rng.uniform(*config.tint_chroma), rng.uniform(-math.pi, math.pi)
    offset = (sign * TINT_LIGHTNESS, math.cos(hue), math.sin(hue))
    return _f32(chroma * np.array(offset))


def _map(lab: Float32[np.ndarray, "n 3"], recolouring: Recolouring) -> Float32[np.ndarray, "n 3"]:
    """Oklab colours -> their new ones, which may lie outside of the gamut."""
    lightness, chromas = _split(lab)
    # Fuzzy c-means' membership at m = 1.5, by distance**-4: edges between clusters are as soft as
    # the clusters are far apart.
    nearness = (1 + SOFTNESS - _cosines(chromas, recolouring.hues)) ** -2
    shares = nearness / nearness.sum(axis=1, keepdims=True)  # [n k]
    lit = _above(lightness, recolouring.ink)
    coloured = _above(np.abs(chromas), recolouring.neutral)
    chromas = chromas * (1 + lit * (shares @ recolouring.factors - 1))
    shift = lit * coloured * (shares @ recolouring.shifts)
    lightness = lightness + shift * 4 * lightness * (1 - lightness)
    new = np.stack([lightness, chromas.real, chromas.imag], axis=1)
    new += np.outer(1 - lit, recolouring.ink_tint)
    return new + np.outer(lit * (1 - coloured), recolouring.grey_tint)


def _above(values: Float32[np.ndarray, "n"], threshold: float) -> Float32[np.ndarray, "n"]:
    """0 up to the threshold, 1 from twice the threshold on, linear between."""
    return np.clip(values / np.float32(threshold) - 1, 0, 1)
