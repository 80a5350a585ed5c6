"""Oklab, and recolourings: what they change, what they keep."""

import numpy as np
import pytest
from oracles.case_folders import noise

from magiccolor_jax.data import palette
from magiccolor_jax.data.palette import PalettePlay, draw_recolouring, recolour

PLAIN = PalettePlay(probability=1.0, tint=0.0)
BOLD = PalettePlay(probability=1.0, tint=1.0)
SEEDS = range(8)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def full(picture: np.ndarray) -> np.ndarray:
    return np.full(picture.shape[:2], 255, np.uint8)


def of_oklab(lightness, chroma, hue) -> np.ndarray:
    """A row of colours [1 n 3] u8; the hue in degrees."""
    angle = np.radians(hue)
    lab = np.broadcast_arrays(lightness, chroma * np.cos(angle), chroma * np.sin(angle))
    return palette.oklab_to_srgb(np.stack(lab, axis=-1).reshape(-1, 3).astype(np.float32))[None]


def polar(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lightness, chroma and hue, in degrees, of a row of colours."""
    lightness, a, b = palette.srgb_to_oklab(pixels.reshape(-1, 3)).T
    return lightness, np.hypot(a, b), np.degrees(np.arctan2(b, a))


def angle_between(first, second) -> np.ndarray:
    return np.abs((np.asarray(first) - second + 180) % 360 - 180)


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        ((255, 255, 255), (1, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 255, 0), (0.86644, -0.23389, 0.17950)),
        ((0, 0, 255), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_known_colours_of_oklab(srgb, lab):
    found = palette.srgb_to_oklab(np.array([srgb], np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [lab], atol=2e-5)


def test_oklab_and_back_is_exact():
    steps = np.array([*range(0, 256, 7), 1, 2, 10, 11, 254, 255], np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    np.testing.assert_array_equal(palette.oklab_to_srgb(palette.srgb_to_oklab(colours)), colours)


def test_outside_of_the_gamut_only_chroma_is_lost():
    lightness, hue = np.meshgrid(np.linspace(0.2, 0.95, 12), np.arange(0, 360, 15))
    pixels = of_oklab(lightness.ravel(), 0.35, hue.ravel())  # sRGB ends at 0.32
    found_lightness, chroma, found_hue = polar(pixels)
    np.testing.assert_allclose(found_lightness, lightness.ravel(), atol=6e-3)
    visible = chroma > 0.06  # below, one level of 255 is degrees of hue
    assert visible.mean() > 0.7
    assert angle_between(found_hue, hue.ravel())[visible].max() < 4
    # No chroma is given away: some channel is at its end.
    assert ((pixels <= 3) | (pixels >= 253)).any(axis=-1).all()


def test_lightness_is_clipped():
    extremes = np.array([[1.3, 0.1, 0], [-0.2, 0, 0.1]], np.float32)
    np.testing.assert_array_equal(palette.oklab_to_srgb(extremes), [[255] * 3, [0] * 3])


def test_hues_are_found():
    true = np.array([20.0, 110.0, 250.0])
    jittered = true[:, None] + generator(0).uniform(-12, 12, (3, 300))
    pixels = of_oklab(0.65, 0.1, jittered.ravel())[0]
    found = np.degrees(np.angle(draw_recolouring(pixels, PLAIN, generator(1)).hues))
    assert len(found) == 3
    assert angle_between(np.sort(found % 360), true).max() < 3
    few = PalettePlay(probability=1.0, clusters=2)
    assert len(draw_recolouring(pixels, few, generator(1)).hues) == 2


def test_a_few_stray_pixels_are_no_cluster():
    pixels = of_oklab(0.65, 0.1, np.array([20.0] * 990 + [200.0] * 10))[0]
    assert len(draw_recolouring(pixels, PLAIN, generator(0)).hues) == 1


def test_a_seed_says_all():
    picture = noise((9, 11, 3))
    first, again, other = (
        recolour(
            picture, full(picture), draw_recolouring(picture.reshape(-1, 3), BOLD, generator(s))
        )
        for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_hues_turn_as_drawn_and_lightness_keeps_its_order(seed: int):
    """Shades of two hues: each turns as a whole, and dark stays darker than light."""
    shades = np.linspace(0.45, 0.8, 20)
    row = np.concatenate([of_oklab(shades, 0.06, 40.0), of_oklab(shades, 0.06, 220.0)], axis=1)
    recolouring = draw_recolouring(row[0], PLAIN, generator(seed))
    assert len(recolouring.hues) == 2
    lightness, chroma, hue = polar(recolour(row, full(row), recolouring))
    for cluster in (slice(0, 20), slice(20, 40)):
        old_hue = polar(row)[2][cluster]
        nearest = angle_between(np.degrees(np.angle(recolouring.hues)), old_hue[0]).argmin()
        factor = recolouring.factors[nearest]
        expected = old_hue + np.degrees(np.angle(factor))
        assert angle_between(hue[cluster], expected).max() < 6
        np.testing.assert_allclose(chroma[cluster], 0.06 * np.abs(factor), atol=5e-3)
        assert (np.diff(lightness[cluster]) > 0).all()
    assert np.abs(lightness - polar(row)[0]).max() < PLAIN.lightness + 5e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_pale_shades_stay_apart(seed: int):
    """Near white a shift of lightness runs out instead of into the end."""
    row = of_oklab(np.linspace(0.85, 0.965, 8), 0.08, 108.0)
    recolouring = draw_recolouring(row[0], PLAIN, generator(seed))
    lightness = polar(recolour(row, full(row), recolouring))[0]
    assert (np.diff(lightness) > 4e-3).all() and lightness.max() < 0.99


def test_hues_take_every_direction():
    row = of_oklab(0.7, 0.08, np.full(30, 60.0))
    drawn = [draw_recolouring(row[0], PLAIN, generator(seed)) for seed in range(60)]
    turned = [polar(recolour(row, full(row), r))[2][0] for r in drawn]
    quarters = np.histogram(turned, bins=4, range=(-180, 180))[0]
    assert quarters.min() >= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_ink_white_and_grey_stay(seed: int):
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    ink = of_oklab(np.linspace(0.02, 0.19, 10), 0.03, 30.0)
    colours = of_oklab(0.6, 0.1, np.arange(0, 360, 10))
    row = np.concatenate([greys, ink, colours], axis=1)
    new = recolour(row, full(row), draw_recolouring(row[0], PLAIN, generator(seed)))
    np.testing.assert_array_equal(new[:, :266], row[:, :266])
    assert (new[:, 266:] != row[:, 266:]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tint_reaches_ink_and_white(seed: int):
    row = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    lightness, chroma, _ = polar(
        recolour(row, full(row), draw_recolouring(row[0], BOLD, generator(seed)))
    )
    assert (chroma > 0.01).all() and (chroma < 0.1).all()
    assert 0 < lightness[0] < 0.2 and 0.8 < lightness[1] < 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("other", [(255, 255, 255), (24, 24, 24)], ids=["white", "ink"])
def test_antialiased_edges_get_no_fringe(seed: int, other: tuple[int, int, int]):
    """A ramp in Oklab from a colour to white or ink stays the ramp between the new ends."""
    ends = palette.srgb_to_oklab(np.array([(200, 90, 80), other], np.uint8))
    share = np.linspace(0, 1, 17, dtype=np.float32)[:, None]
    row = palette.oklab_to_srgb(ends[0] + share * (ends[1] - ends[0]))[None]
    recolouring = draw_recolouring(row[0, :1], PLAIN, generator(seed))
    new = palette.srgb_to_oklab(recolour(row, full(row), recolouring)[0])
    _, *ab = (new - (new[0] + share * (new[-1] - new[0]))).T
    lit = palette.srgb_to_oklab(row[0])[:, 0] > 2 * PLAIN.ink
    assert np.hypot(*ab)[lit].max() < 0.03
    # Its distances from step to step are of one size: no jump anywhere.
    assert np.linalg.norm(np.diff(new, axis=0), axis=1).max() < 0.12


def test_a_mixture_of_two_clusters_is_smooth():
    row = of_oklab(0.65, 0.08, np.arange(0, 360, 1.0))
    for seed in SEEDS:
        new = recolour(row, full(row), draw_recolouring(row[0], PLAIN, generator(seed)))
        lab = palette.srgb_to_oklab(new[0])
        assert np.linalg.norm(np.diff(lab, axis=0), axis=1).max() < 0.05


def test_target_and_reference_get_the_same_colours():
    target, order = noise((13, 17, 3)), generator(5).permutation(13 * 17)
    reference = target.reshape(-1, 3)[order].reshape(17, 13, 3)
    recolouring = draw_recolouring(target.reshape(-1, 3), BOLD, generator(6))
    new_target = recolour(target, full(target), recolouring)
    new_reference = recolour(reference, full(reference), recolouring)
    np.testing.assert_array_equal(new_reference.reshape(-1, 3), new_target.reshape(-1, 3)[order])


def test_the_mask_is_the_share_of_the_new_colour():
    picture = np.tile(np.array([200, 80, 60], np.uint8), (1, 256, 1))
    recolouring = draw_recolouring(picture[0], PLAIN, generator(2))
    new = recolour(picture, full(picture), recolouring)[0, 0]
    assert np.abs(new.astype(int) - picture[0, 0]).max() > 30
    share = np.arange(256)[:, None] / 255
    blended = recolour(picture, np.arange(256, dtype=np.uint8)[None], recolouring)[0]
    expected = picture[0] + share * (new.astype(float) - picture[0])
    assert np.abs(blended - expected).max() < 0.51
    np.testing.assert_array_equal(blended[[0, -1]], [picture[0, 0], new])


def test_outside_of_the_mask_nothing_changes_and_the_input_never():
    picture = noise((31, 23, 3))
    before, mask = picture.copy(), np.zeros((31, 23), np.uint8)
    mask[5:20, 3:9] = 255
    recolouring = draw_recolouring(picture[mask > 0], BOLD, generator(1))
    new = recolour(picture, mask, recolouring)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(new[mask == 0], picture[mask == 0])
    assert (new != picture)[mask > 0].any(axis=-1).mean() > 0.9


def test_without_recolouring_nothing_changes():
    picture = noise((19, 21, 3))
    still = PalettePlay(probability=0.0)
    recolouring = draw_recolouring(picture.reshape(-1, 3), still, generator(0))
    np.testing.assert_array_equal(recolour(picture, full(picture), recolouring), picture)


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_pixels_and_no_colour_at_all(count: int):
    grey = np.full((1, count, 3), 120, np.uint8)
    recolouring = draw_recolouring(grey[0], PLAIN, generator(0))
    np.testing.assert_array_equal(recolour(grey, full(grey), recolouring), grey)
    colour = np.tile(np.array([200, 80, 60], np.uint8), (1, count, 1))
    turned = recolour(colour, full(colour), draw_recolouring(colour[0], PLAIN, generator(0)))
    assert turned.shape == colour.shape and (turned != colour).any() == (count > 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("probability", 1.5),
        ("clusters", 0),
        ("turn", 181.0),
        ("chroma", (1.5, 0.5)),
        ("lightness", 0.25),
        ("ink", 0.0),
        ("neutral", 0.0),
        ("tint", -0.1),
        ("tint_chroma", (0.0, 0.5)),
    ],
)
def test_settings_are_checked(field: str, value):
    with pytest.raises(ValueError, match=rf"PalettePlay\.{field}: expected .* got"):
        PalettePlay(**{field: value})
