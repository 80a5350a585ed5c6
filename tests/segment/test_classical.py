"""Instances of flat artwork, and which masks become instances."""

import cv2
import numpy as np
import pytest

from magiccolor_jax.segment.classical import flat_masks
from magiccolor_jax.segment.objects import ObjectConfig, instances, mended


def page(color=(255, 255, 255)):
    return np.full((200, 300, 3), color, np.uint8)


def disc(x, y, radius):
    mask = np.zeros((200, 300), np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def test_transparency_cuts_out():
    alpha = np.where(disc(80, 100, 40) | disc(220, 100, 30), np.uint8(255), np.uint8(0))
    found = flat_masks(page(), alpha)
    assert found.how == "the alpha channel" and len(found.masks) == 2
    assert sorted(mask.sum() for mask in found.masks) == sorted(
        [disc(80, 100, 40).sum(), disc(220, 100, 30).sum()]
    )


def test_soft_corners_do_not():
    alpha = np.full((200, 300), 255, np.uint8)
    alpha[0, 0] = 0
    picture = page()
    picture[disc(80, 100, 40)] = (200, 0, 0)
    assert flat_masks(picture, alpha).how == "the plain ground"


@pytest.mark.parametrize("paper", [(255, 255, 255), (40, 90, 60)])
def test_a_plain_ground_is_cut_away(paper):
    """With grain on it; white inside of an object belongs to the object."""
    picture = page(paper)
    picture[disc(80, 100, 40)] = (200, 30, 160)
    picture[disc(80, 100, 15)] = paper
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    found = flat_masks(picture, None)
    (mask,) = found.masks
    assert found.how == "the plain ground"
    assert (mask != disc(80, 100, 40)).sum() < 0.03 * mask.sum()


def test_lines_with_small_gaps_hold_the_ground_back():
    """An outline alone, and a gap of two pixels in it."""
    picture = np.full((600, 900, 3), 255, np.uint8)
    cv2.circle(picture, (450, 300), 150, (0, 0, 0), 3)
    picture[299:301, 590:610] = 255
    (mask,) = flat_masks(picture, None).masks
    whole = np.zeros((600, 900), np.uint8)
    cv2.circle(whole, (450, 300), 151, 1, -1)
    assert (mask != (whole > 0)).sum() < 0.02 * whole.sum()
    picture[280:320, 590:610] = 255
    leaked = flat_masks(picture, None).masks
    assert sum(mask.sum() for mask in leaked) < 0.1 * whole.sum()


def test_without_a_ground_flat_colours_are_parts():
    picture = page()
    picture[:, :150], picture[:, 150:] = (200, 40, 40), (40, 40, 200)
    picture[disc(150, 100, 40)] = (230, 220, 60)
    found = flat_masks(picture, None)
    assert "flat colours" in found.how
    areas = sorted(mask.sum() for mask in found.masks)
    assert areas[-3] == pytest.approx(disc(150, 100, 40).sum(), rel=0.05)
    assert np.sum([mask for mask in found.masks], axis=0).max() == 1


def test_parts_are_joined_to_their_whole():
    whole, part, beside = disc(80, 100, 40), disc(80, 90, 10), disc(220, 100, 30)
    ground = ~(disc(-50, 0, 20))
    masks = [part, beside, whole, ground]
    assert instances(masks, ObjectConfig()) == [2, 1]
    assert instances(masks, ObjectConfig(merge=False)) == [2, 1, 0]
    assert instances(masks, ObjectConfig(max_count=1)) == [2]
    assert instances(masks, ObjectConfig(min_area=0.06)) == [2]
    assert instances([], ObjectConfig()) == []
    assert instances([np.zeros((200, 300), bool)], ObjectConfig(min_area=0.0)) == []


def test_half_inside_is_no_part():
    one, other = disc(80, 100, 40), disc(118, 100, 20)
    assert instances([one, other], ObjectConfig()) == [0, 1]


def test_crumbs_are_mended():
    mask = disc(80, 100, 40)
    broken = mask.copy()
    broken[100, 80], broken[5, 5] = False, True
    np.testing.assert_array_equal(mended(broken, 4), mask)
    np.testing.assert_array_equal(mended(broken, 0), broken)
