"""Lines of a page against lines of its sketch."""

import math

import cv2
import numpy as np
import pytest

from magiccolor_jax.evaluation.lines import line_fidelity

SIDE = 200


def drawn(*ends, width=2):
    """A white page with black lines."""
    page = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for start, end in ends:
        cv2.line(page, start, end, (0, 0, 0), width)
    return page


BOTH = ((30, 20), (30, 180)), ((150, 20), (150, 180))


def test_a_page_that_keeps_its_lines_is_perfect_whatever_its_colour():
    sketch = drawn(*BOTH)
    colored = np.where(sketch > 128, np.array([255, 220, 120], np.uint8), sketch)
    assert line_fidelity(sketch, sketch) > 0.99
    assert line_fidelity(colored, sketch) > 0.99


def test_half_of_the_lines_is_two_thirds():
    """Precision 1, recall 1/2; and the other way round."""
    one = drawn(BOTH[0])
    assert line_fidelity(one, drawn(*BOTH)) == pytest.approx(2 / 3, abs=0.01)
    assert line_fidelity(drawn(*BOTH), one) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize(("shift", "near"), [(1, True), (12, False)])
def test_lines_may_be_off_by_little(shift, near):
    moved = drawn(*(((x + shift, y), (x + shift, z)) for (x, y), (_, z) in BOTH))
    assert (line_fidelity(moved, drawn(*BOTH)) > 0.95) == near
    assert near or line_fidelity(moved, drawn(*BOTH)) < 0.05


def test_no_lines():
    blank = drawn()
    assert line_fidelity(blank, drawn(*BOTH)) == 0
    assert math.isnan(line_fidelity(drawn(*BOTH), blank))
