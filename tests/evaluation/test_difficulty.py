"""How instances lie against each other."""

import numpy as np
import pytest

from magiccolor_jax.evaluation.difficulty import difficulty_of


def block(top, left, bottom, right, page=(40, 60)):
    region = np.zeros(page, bool)
    region[top:bottom, left:right] = True
    return region


def test_one_instance_is_easy():
    assert difficulty_of([block(0, 0, 40, 60)]) == (1, 0.0, 0.0)


def test_apart():
    assert difficulty_of([block(5, 5, 15, 15), block(5, 30, 15, 40)]) == (2, 0.0, 0.0)


def test_boxes_overlap_by_the_mean_of_both_shares():
    """A quarter of the small box, a sixteenth of the large one."""
    found = difficulty_of([block(0, 0, 10, 10), block(5, 5, 25, 25)])
    assert found.overlap == pytest.approx((1 / 4 + 1 / 16) / 2)


def test_side_by_side_a_side_of_the_outline_is_occluded():
    """10 x 10 has an outline of 36 pixels, of which 10 touch, and one more row at each end."""
    found = difficulty_of([block(10, 10, 20, 20), block(10, 20, 20, 40)])
    assert found.overlap == 0
    assert found.occlusion == pytest.approx((10 + 2) / 36)


def test_what_lies_inside_of_another_is_occluded_as_a_whole():
    assert difficulty_of([block(0, 0, 40, 60), block(10, 10, 20, 20)]).occlusion == 1


def test_overlap_can_come_without_contact():
    corner = block(5, 5, 25, 30) & ~block(5, 15, 15, 30)
    found = difficulty_of([corner, block(5, 20, 10, 30)])
    assert found.overlap > 0 and found.occlusion == 0
