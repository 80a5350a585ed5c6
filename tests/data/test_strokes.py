"""Lines are measured, thinned and thickened; none is lost, broken or joined to another."""

import cv2
import numpy as np
import pytest

from magiccolor_jax.data.strokes import line_width, middles, thicken, thin


def scribble(seed=0, width=3, shape=(140, 180)):
    """Random curves with a margin around them."""
    rng = np.random.default_rng(seed)
    page = np.zeros(shape, np.uint8)
    for _ in range(7):
        points = rng.uniform(12, (shape[1] - 12, shape[0] - 12), (4, 2))
        steps = np.linspace(0, 1, 60)[:, None]
        curve = sum(
            weight * (1 - steps) ** (3 - i) * steps**i * points[i]
            for i, weight in enumerate((1, 3, 3, 1))
        )
        cv2.polylines(page, [np.rint(curve).astype(np.int32)], False, 1, width)
    return page.astype(np.float32)


def check_none_lost_or_broken(found, ink):
    """Drawings within drawings: as many pieces, and nowhere is what a line parts now joined."""
    found, ink = (np.where(page > 0.4, np.uint8(1), np.uint8(0)) for page in (found, ink))
    assert (found <= ink).all()
    count, labels = cv2.connectedComponents(ink, connectivity=8)
    assert len(np.unique(labels[found > 0])) == count - 1
    assert cv2.connectedComponents(found, connectivity=8)[0] == count
    count, labels = cv2.connectedComponents(1 - ink, connectivity=4)
    now = cv2.connectedComponents(1 - found, connectivity=4)[1]
    assert count > 4  # there is something to break
    assert len({now[labels == label].min() for label in range(1, count)}) == count - 1


def width_of(ink):
    return line_width(ink, middles(ink))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_middles_are_one_pixel_of_each_line(seed, width):
    ink = scribble(seed, width)
    middle = middles(ink)
    check_none_lost_or_broken(middle, ink)
    ends = cv2.distanceTransform(1 - middle, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert ends[ink > 0].max() < 1.5 * width + 2
    opencv = np.count_nonzero(cv2.ximgproc.thinning(np.uint8(255) * (ink > 0)))
    assert middle.sum() == pytest.approx(opencv, rel=0.1)


@pytest.mark.parametrize("slope", [-1, 1])
def test_the_middle_of_a_slanted_line_of_two_pixels_is_not_eaten(slope):
    """As the thinning of 1984 does from the end, step by step."""
    ink = np.zeros((60, 60), np.float32)
    for row in range(59):
        ink[row, row : row + 2] = 1
    middle = middles(np.ascontiguousarray(ink[::slope]))
    assert np.all(np.max(middle, axis=0)[2:-2])


def test_a_grey_area_between_lines_is_not_taken_for_one_of_them():
    ink = np.zeros((50, 80), np.float32)
    ink[20:31, 10:70] = 0.3
    ink[20:22, 10:70] = ink[29:31, 10:70] = 1
    assert middles(ink)[:, 30].sum() >= 2
    found = thin(ink, 2.0, middles(ink))
    assert found[20:22, 40].max() == found[29:31, 40].max() == 1


def test_middles_do_not_go_on_forever_in_black_areas():
    ink = np.zeros((200, 200), np.float32)
    ink[20:180, 20:180] = 1
    middle = middles(ink)
    assert middle[30:170, 30:170].all() and middle.sum() < 145**2


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("share", [1, 0.5])
def test_width_of_straight_lines(width, share):
    ink = np.zeros((120, 150), np.float32)
    ink[20 : 20 + width, 10:140] = share
    ink[40:110, 70 : 70 + width] = share
    assert width_of(ink) == pytest.approx(share * width, abs=0.1)


@pytest.mark.parametrize("angle", [10, 30, 45, 80])
@pytest.mark.parametrize("width", [2.0, 4.5])
def test_width_of_slanted_lines(width, angle):
    rows, columns = np.mgrid[:150, :150] - 75.0
    across = rows * np.cos(np.radians(angle)) + columns * np.sin(np.radians(angle))
    ink = np.clip(width / 2 + 0.5 - np.abs(across), 0, 1).astype(np.float32)
    ink[np.hypot(rows, columns) > 60] = 0
    assert width_of(ink) == pytest.approx(width, rel=0.15)


def test_width_without_lines():
    for ink in (np.zeros((9, 9), np.float32), np.ones((90, 90), np.float32)):
        assert width_of(ink) == 0


def test_black_areas_are_no_lines():
    ink = np.zeros((200, 300), np.float32)
    ink[20:120, 20:120] = 1
    ink[150:152, 20:280] = 1
    assert width_of(ink) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("radius", [0.25, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_thicker_by_what_is_asked_for(radius, width):
    ink = np.zeros((120, 150), np.float32)
    ink[50 : 50 + width, 20:130] = 1
    assert width_of(thicken(ink, radius)) == pytest.approx(width + 2 * radius, abs=0.15)
    assert (thicken(ink, radius) >= ink).all()


@pytest.mark.parametrize("radius", [0.25, 0.5, 1.0, 1.75, 3.0])
@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_thinner_by_what_is_asked_for_but_not_below_one_and_a_half(radius, width):
    ink = np.zeros((120, 150), np.float32)
    ink[50 : 50 + width, 20:130] = 1
    expected = max(width - 2 * radius, min(width, 1.5))
    if int(4 + 6 * radius) | 1 > width:  # else it is an area at that radius
        found = thin(ink, radius, middles(ink))
        assert width_of(found) == pytest.approx(expected, abs=0.3)
        assert (found <= ink).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("width", "radius"), [(1, 1.0), (3, 1.0), (4, 1.5), (6, 2.5), (2, 3.0)])
def test_thinning_neither_loses_nor_breaks_a_line(seed, width, radius):
    ink = scribble(seed, width)
    check_none_lost_or_broken(thin(ink, radius, middles(ink)), ink)


def test_fine_lines_survive_among_bold_ones():
    ink = np.zeros((100, 160), np.float32)
    ink[20:26, 10:150] = 1
    ink[20:90, 60:66] = 1
    ink[60, 10:150] = 1
    ink[80, 10:150] = 0.4
    found = thin(ink, 2.0, middles(ink))
    np.testing.assert_array_equal(found[60, 10:150], 1)
    np.testing.assert_allclose(found[80, 11:59], 0.4, atol=1e-6)
    assert found[20:26, 30].sum() == pytest.approx(2, abs=0.3)


def test_a_soft_fine_line_among_bold_ones_does_not_fade():
    rows, columns = np.mgrid[:100, :160]
    across = (rows - 70) * np.cos(0.3) - (columns - 80) * np.sin(0.3)
    ink = np.clip(1 - np.abs(across), 0, 1).astype(np.float32)  # one pixel wide
    ink[20:26, 10:150] = 1
    darkest = thin(ink, 2.0, middles(ink))[40:, 60:100].max(axis=0)
    assert darkest.min() > 0.8


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_black_areas_keep_their_extent_when_lines_are_thinned(radius):
    ink = np.zeros((100, 160), np.float32)
    cv2.circle(ink, (50, 50), 20, 1, -1)
    ink[48:52, 70:150] = 1
    found = thin(ink, radius, middles(ink))
    assert np.count_nonzero(found[:, :69] < ink[:, :69]) < 10  # of 1257; roughness of its edge
    assert found[46:54, 110].sum() < 3.1


@pytest.mark.parametrize("gap", [1, 2])
@pytest.mark.parametrize("radius", [0.5, 1.0])
def test_thickening_leaves_narrow_gaps_open(gap, radius):
    ink = np.zeros((60, 100), np.float32)
    ink[30, 10:90] = 1
    ink[31 + gap, 10:90] = 1
    found = thicken(ink, radius)
    assert (found[31 : 31 + gap, 15:85] == 0).all()
    assert (found[29, 15:85] == min(radius, 1)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 2)])
def test_tiny_pages(shape):
    ink = np.ones(shape, np.float32)
    for page in (ink, 0 * ink):
        np.testing.assert_array_equal(thicken(page, 0.5), page)
        assert thin(page, 1.5, middles(page)).shape == shape
        assert width_of(page) >= 0
