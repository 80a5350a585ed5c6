"""One form for every sketch, whatever it was drawn with and on."""

from typing import Any

import cv2
import numpy as np
import pytest

from magiccolor_jax.data.sketches import SketchJitter, jitter_sketch, normalise_sketch
from magiccolor_jax.data.strokes import line_width, middles

SHAPES = [(240, 320), (301, 131)]
OFF: dict[str, Any] = {"thickness": 0.0, "fade": 0.0, "grain": 0.0, "gap": 0.0}


def only(**changes: Any) -> SketchJitter:
    """No jitter but this."""
    return SketchJitter(**(OFF | changes))


def drawn(shape=(240, 320), width=2):
    """Black antialiased curves and a filled spot on white."""
    page = np.full((*shape, 3), 255, np.uint8)
    height, columns = shape
    for i in range(4):
        centre = (columns * (i + 1) // 5, height // 2)
        axes = (columns // 9, height // 5 + 3 * i)
        cv2.ellipse(page, centre, axes, 20 * i, 0, 360, (0, 0, 0), width, cv2.LINE_AA)
    cv2.circle(page, (columns // 4, height // 2), 12, (0, 0, 0), -1)
    return page


def on(sketch, how):
    unit = sketch / 255
    height, width = sketch.shape[:2]
    shadow = 0.55 + 0.4 * np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    grain = np.random.default_rng(0).normal(0, 0.01, unit.shape)
    pictures = {
        "white on black": 1 - unit,
        "grey paper": 0.6 * unit,
        "tinted paper": unit * [0.98, 0.92, 0.78],
        "faint pencil": 1 - 0.35 * (1 - unit),
        "yellow pen": 1 - (1 - unit) * [0.05, 0.15, 0.9],
        "shadow": unit * shadow,
        "photographed pencil": np.clip((1 - 0.5 * (1 - unit)) * shadow + grain, 0, 1),
        "chalk": 1 - np.clip((1 - 0.5 * (1 - unit)) * shadow + grain, 0, 1),
    }
    return np.rint(pictures[how] * 255).astype(np.uint8)


def width_of(lines):
    ink = 1 - lines.astype(np.float32) / 255
    return line_width(ink, middles(ink))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("how", "levels"),
    [
        ("white on black", 1e-9),
        ("grey paper", 0.5),
        ("tinted paper", 0.5),
        ("faint pencil", 0.5),
        ("yellow pen", 0.5),
        ("shadow", 1.5),
        ("photographed pencil", 2.5),
        ("chalk", 2.5),
    ],
)
def test_every_paper_and_pen_becomes_the_same(shape, how, levels):
    sketch = drawn(shape)
    expected = normalise_sketch(sketch).lines.astype(float)
    found, inverted = normalise_sketch(on(sketch, how))
    raw = cv2.cvtColor(on(sketch, how), cv2.COLOR_RGB2GRAY).astype(float)
    assert np.abs(found - expected).mean() < levels
    assert np.abs(raw - expected).mean() > 4
    assert inverted == (how in ("white on black", "chalk"))


def test_clean_lines_stay_where_they_are():
    sketch = drawn()
    found = normalise_sketch(sketch).lines
    black = sketch[..., 0] == 0
    assert (found[sketch[..., 0] == 255] >= 190).all()  # a soft edge may have been added
    assert (cv2.erode(found, np.ones((3, 3), np.uint8))[black] < 64).all()
    assert found.min() == 0 and (found == 255).mean() > 0.8


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7])
def test_lines_are_brought_to_one_width(width):
    page = np.full((300, 300, 3), 255, np.uint8)
    for i in range(3):
        page[60 * (i + 1) : 60 * (i + 1) + width, 20:280] = 0
        page[20:280, 70 * (i + 1) : 70 * (i + 1) + width] = 0
    assert width_of(normalise_sketch(page).lines) == pytest.approx(1.5, abs=0.35)


def test_very_bold_lines_stay_bold():
    page = np.full((300, 300, 3), 255, np.uint8)
    page[100:112, 20:280] = 0
    page[20:280, 200:212] = 0
    assert width_of(normalise_sketch(page).lines) == pytest.approx(12 - 2 * 3, abs=0.5)


@pytest.mark.parametrize("width", [1, 5])
def test_black_areas_stay_black(width):
    page = drawn(width=width)
    spot = (slice(113, 128), slice(73, 88))
    assert (page[spot] == 0).all() and (normalise_sketch(page).lines[spot] == 0).all()


@pytest.mark.parametrize("how", ["plain", "shadow", "grey paper"])
def test_a_page_that_is_mostly_black_hair_is_not_inverted(how):
    """Two thirds of it: neither the mean nor the median tell ink from paper."""
    page = drawn()
    page[:, :150] = 0
    page[150:] = 0
    sketch = page if how == "plain" else on(page, how)
    found, inverted = normalise_sketch(sketch)
    assert np.median(sketch) < 64 and not inverted
    assert (found[155:, 5:] == 0).all() and (found[:, 5:145] == 0).all()
    assert (found[5:30, 160:] == 255).mean() > 0.98
    assert normalise_sketch(255 - page).inverted


@pytest.mark.parametrize(
    ("colour", "least", "most"),
    [
        ((255, 255, 0), 0, 50),  # hardly darker than white, but meant to be seen
        ((200, 60, 40), 0, 50),
        ((164, 221, 237), 125, 200),  # the light blue of drafts is not meant to be seen
    ],
)
def test_coloured_lines_beside_black_ones(colour, least, most):
    page = drawn(width=1)
    page[200:202, 20:300] = colour
    found = normalise_sketch(page).lines[200:202, 100:200].max(axis=0)
    assert least <= found.min() and found.max() <= most


def test_faint_lines_beside_black_ones_are_not_lost():
    page = drawn()
    page[200:202, 20:300] = 240
    assert (normalise_sketch(page).lines[200:202, 30:290].min(axis=0) < 250).all()


@pytest.mark.parametrize(("level", "inverted"), [(0, True), (100, True), (255, False)])
def test_an_empty_page_is_white(level, inverted):
    found = normalise_sketch(np.full((40, 50, 3), level, np.uint8))
    assert (found.lines == 255).all() and found.inverted == inverted


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (640, 1), (2, 3), (7, 500), (1500, 1100)])
def test_pages_of_any_size(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert normalise_sketch(noise).lines.shape == shape
    blank = np.full((*shape, 3), 255, np.uint8)
    assert (normalise_sketch(blank).lines == 255).all()


def test_the_shadow_is_measured_by_the_page():
    small, large = drawn((240, 320)), drawn((960, 1280))
    for page in (small, large):
        lines = normalise_sketch(on(page, "shadow")).lines
        assert np.abs(lines - normalise_sketch(page).lines.astype(float)).mean() < 1.5


def test_a_grey_photograph_is_taken_as_it_comes():
    rows, columns = np.mgrid[:200, :300] / 200
    light = 0.5 + 0.3 * np.sin(9 * columns + 4 * rows) + 0.2 * np.cos(13 * rows * columns)
    photo = np.repeat(np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)
    found = normalise_sketch(photo).lines
    assert 0.2 < (found > 127).mean() < 0.99


def test_jitter_is_drawn_from_the_generator():
    lines = normalise_sketch(drawn()).lines
    config = SketchJitter()
    first, again = (jitter_sketch(lines, config, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    others = [jitter_sketch(lines, config, np.random.default_rng(i)) for i in range(8)]
    assert len({other.tobytes() for other in others}) > 4
    assert np.array_equal(jitter_sketch(lines, SketchJitter.off(), np.random.default_rng(0)), lines)


@pytest.mark.parametrize("name", ["thickness", "fade", "grain", "gap"])
def test_each_jitter_can_be_had_alone(name):
    lines = normalise_sketch(drawn()).lines
    config = only(**{name: 1.0}, lost=0.3)
    found = jitter_sketch(lines, config, np.random.default_rng(1))
    ink, before = 255 - found.astype(int), 255 - lines.astype(int)
    whole = before == 255
    seen = {
        "thickness": ink.sum() > 1.1 * before.sum() and ink[whole].min() == 255,
        "fade": ink.max() < 250 and np.array_equal(ink > 0, before > 0),
        "grain": (ink[before == 0] > 0).mean() > 0.3 and np.abs(ink - before).max() < 80,
        "gap": (ink[before > 64] == 0).any() and (ink <= before).all() and ink.max() == 255,
    }
    assert [key for key, value in seen.items() if value] == [name]


@pytest.mark.parametrize(("radius", "sign"), [(1.0, 1), (-1.0, -1)])
def test_lines_grow_and_shrink_without_vanishing(radius, sign):
    lines = drawn(width=4)[..., 0]
    config = only(thickness=1.0, grow=(radius, radius))
    found = jitter_sketch(lines, config, np.random.default_rng(0))
    assert sign * (width_of(found) - width_of(lines)) > 1
    thin = np.full((20, 20), 255, np.uint8)
    thin[10] = 0
    assert (jitter_sketch(thin, config, np.random.default_rng(0))[10, 1:-1] == 0).all()


def test_fading_and_noise_stay_in_their_bounds():
    lines = normalise_sketch(drawn()).lines
    for seed in range(6):
        rng = np.random.default_rng(seed)
        faded = jitter_sketch(lines, only(fade=1.0, faintest=0.6), rng)
        assert 0 <= faded.min() <= 255 * 0.4 + 1
        grey = np.full((100, 100), 128, np.uint8)
        noisy = jitter_sketch(grey, only(grain=1.0, noise=0.1), rng)
        assert np.std(noisy / 255) <= 0.105


def test_gaps_cover_the_share_that_is_asked_for():
    config = only(gap=1.0, lost=0.3)
    black = np.zeros((240, 320), np.uint8)
    shares = [(jitter_sketch(black, config, np.random.default_rng(i)) > 0).mean() for i in range(9)]
    assert max(shares) <= 0.32 and max(shares) > 0.15


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [(name, 2.0, r"a number in \[0, 1\], got 2.0") for name in (*OFF, "lost", "faintest", "noise")]
    + [
        ("grow", (1.0, -1.0), r"low <= high, both in \[-3, 3\]"),
        ("grow", (-4.0, 1.0), r"low <= high, both in \[-3, 3\]"),
    ],
)
def test_nonsense_is_refused(field: str, value: Any, says: str):
    with pytest.raises(ValueError, match=rf"SketchJitter.{field}: expected {says}"):
        only(**{field: value})
