"""References made from the page's own instances: what each change keeps, and how far it goes."""

import dataclasses

import numpy as np
import pytest
from oracles.case_folders import noise

from magiccolor_jax.data import selfplay
from magiccolor_jax.data.selfplay import Reference, SelfPlay, crop, make_reference, play, shuffle

SEEDS = range(8)
ALL = SelfPlay(flip=1.0, rotate=1.0, rescale=1.0, warp=1.0, occlude=1.0, jitter=1.0, shuffle=1.0)
CHANGES = {
    "flip": (selfplay.flip, ()),
    "rotate": (selfplay.rotate, ((-180.0, 180.0),)),
    "rescale": (selfplay.rescale, ((0.5, 1.5),)),
    "warp": (selfplay.warp, (0.05,)),
    "occlude": (selfplay.occlude, (0.5,)),
    "frame": (selfplay.frame, (0.2,)),
    "jitter": (selfplay.jitter, (0.1, 0.2)),
    "shuffle": (selfplay.shuffle, ((2, 8),)),
}
GEOMETRY = ["flip", "rotate", "warp"]
every_change = pytest.mark.parametrize("name", CHANGES)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(height: int = 61, width: int = 83) -> np.ndarray:
    """An ellipse with a corner, touching the edges; no symmetry."""
    y, x = np.indices((height, width))
    inside = ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2) < 0.25
    return np.where(inside | ((y < height / 3) & (x < width / 4)), 255, 0).astype(np.uint8)


def page(mask: np.ndarray) -> np.ndarray:
    """A smooth picture of a mask's size, nowhere white."""
    y, x = np.indices(mask.shape) / np.array(mask.shape)[:, None, None]
    return np.stack([40 + 120 * y, 60 + 100 * x, 80 + 0 * x], axis=-1).astype(np.uint8)


def reference_of(mask: np.ndarray, picture: np.ndarray | None = None) -> Reference:
    picture = page(mask) if picture is None else picture
    return make_reference(picture, mask, SelfPlay.off(), generator(0))


def check(reference: Reference) -> None:
    """What `Reference` promises."""
    picture, mask = reference
    assert picture.dtype == mask.dtype == np.uint8 and picture.shape == (*mask.shape, 3)
    assert set(np.unique(mask)) <= {0, 255} and mask.any()
    assert (picture[mask == 0] == 255).all()


def area(reference: Reference) -> int:
    return int(np.count_nonzero(reference.mask))


def test_off_is_the_instance_in_its_box():
    mask = np.zeros((40, 50), np.uint8)
    mask[7:30, 11:36] = blob(23, 25)
    mask[0, 0] = 127  # does not count
    mask[7, 20] = 128  # counts
    picture = noise((40, 50, 3))
    reference = make_reference(picture, mask, SelfPlay.off(), generator(0))
    check(reference)
    counts = mask[7:30, 11:36] > 127
    np.testing.assert_array_equal(reference.mask > 0, counts)
    np.testing.assert_array_equal(reference.picture[counts], picture[7:30, 11:36][counts])


def test_a_seed_says_all_and_the_input_stays():
    mask = blob()
    picture = page(mask)
    before = picture.copy(), mask.copy()
    first, again, other = (make_reference(picture, mask, ALL, generator(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.picture, again.picture)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.mask.shape != other.mask.shape or (first.mask != other.mask).any()
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(mask, before[1])


@every_change
@pytest.mark.parametrize("seed", SEEDS)
def test_picture_and_mask_move_together(name: str, seed: int):
    """An instance that is black on white: wherever the mask counts, the picture is dark."""
    change, strength = CHANGES[name]
    mask = blob()
    black = reference_of(mask, np.repeat(255 - mask[..., None], 3, axis=2))
    changed = change(black, generator(seed), *strength)
    check(changed)
    inside = changed.picture[changed.mask > 0]
    assert inside.max() < 160 and np.median(inside) < 40


@every_change
@pytest.mark.parametrize(
    "mask",
    [
        np.full((1, 1), 255, np.uint8),
        np.full((1, 37), 255, np.uint8),
        np.full((33, 47), 255, np.uint8),
        np.pad(np.full((1, 1), 255, np.uint8), ((3, 11), (20, 0))),
        np.eye(29, dtype=np.uint8) * 255,
    ],
    ids=["one pixel", "a row", "full", "one pixel in a corner", "a thin diagonal"],
)
def test_no_instance_vanishes(name: str, mask: np.ndarray):
    change, strength = CHANGES[name]
    for seed in SEEDS:
        check(change(reference_of(mask), generator(seed), *strength))
        check(make_reference(page(mask), mask, ALL, generator(seed)))


def test_flip_mirrors():
    reference = reference_of(blob())
    flipped = selfplay.flip(reference, generator(0))
    for before, after in zip(reference, flipped, strict=True):
        np.testing.assert_array_equal(after, before[:, ::-1])


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("full", [False, True], ids=["blob", "full"])
@pytest.mark.parametrize("seed", SEEDS)
def test_geometry_keeps_area_and_colours(name: str, full: bool, seed: int):
    """Nothing is cut off, even where the instance fills the picture."""
    change, strength = CHANGES[name]
    reference = reference_of(np.full((61, 83), 255, np.uint8) if full else blob())
    changed = change(reference, generator(seed), *strength)
    tolerance = {"flip": 1e-9, "rotate": 0.03, "warp": 0.25}[name]
    assert abs(area(changed) / area(reference) - 1) < tolerance
    before, after = (r.picture[r.mask > 0].astype(float) for r in (reference, changed))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=9)
    np.testing.assert_allclose(
        np.quantile(after, (0.1, 0.9), axis=0), np.quantile(before, (0.1, 0.9), axis=0), atol=12
    )


@pytest.mark.parametrize("degrees", [90.0, -90.0, 180.0, 0.0])
def test_rotation_turns_counter_clockwise(degrees: float):
    reference = reference_of(blob())
    turned = selfplay.rotate(reference, generator(0), (degrees, degrees))
    expected = np.rot90(reference.mask, round(degrees / 90))
    height, width = expected.shape
    assert abs(turned.mask.shape[0] - height) <= 1 and abs(turned.mask.shape[1] - width) <= 1
    rows, columns = min(height, turned.mask.shape[0]), min(width, turned.mask.shape[1])
    differs = turned.mask[:rows, :columns] != expected[:rows, :columns]
    assert differs.mean() < 0.04


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_rescale_keeps_proportions(factor: float):
    reference = reference_of(blob())
    scaled = selfplay.rescale(reference, generator(0), (factor, factor))
    for before, after in zip(reference.mask.shape, scaled.mask.shape, strict=True):
        assert abs(after - before * factor) <= 1.5
    assert abs(area(scaled) / area(reference) / factor**2 - 1) < 0.04
    if factor == 1:
        np.testing.assert_array_equal(scaled.picture, reference.picture)


def test_factors_have_no_drift():
    reference = reference_of(np.full((100, 100), 255, np.uint8))
    rng = generator(0)
    sides = [selfplay.rescale(reference, rng, (0.5, 2.0)).mask.shape[0] for _ in range(300)]
    assert (
        abs(np.mean(np.array(sides) > 100) - 0.5) < 0.08 and 50 <= min(sides) <= max(sides) <= 200
    )


def test_thin_plate_spline_meets_its_knots_and_keeps_planes():
    knots = generator(0).normal(size=(16, 2))
    field = selfplay.thin_plate_spline(knots, (150, 90))
    corners = field[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, knots[[0, 3, 12, 15]], atol=0.1)
    inner = field[49:51, 29:31].mean(axis=(0, 1))  # around a third of both sides
    np.testing.assert_allclose(inner, knots[5], atol=0.01)
    y, x = np.indices((4, 4)) / 3
    plane = selfplay.thin_plate_spline((2 + 3 * y - x).reshape(-1, 1), (20, 30))[..., 0]
    v, u = (np.indices((20, 30)) + 0.5) / np.array([20, 30])[:, None, None]
    np.testing.assert_allclose(plane, 2 + 3 * v - u, atol=1e-4)


def test_a_warp_neither_folds_nor_leaves_its_margin():
    """The bounds that MOST_BEND and OVERSHOOT state, at the worst signs of all control points."""
    identity = selfplay.thin_plate_spline(np.eye(16), (64, 64))
    assert np.abs(identity).sum(axis=-1).max() < selfplay.OVERSHOOT
    for axis in (0, 1):
        slopes = np.abs(np.diff(identity, axis=axis) * 64).sum(axis=-1)
        assert slopes.max() * selfplay.MOST_BEND < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_warp_moves_something(seed: int):
    reference = reference_of(blob())
    bent = selfplay.warp(reference, generator(seed), 0.05)
    rows, columns = np.minimum(reference.mask.shape, bent.mask.shape)
    assert (reference.mask[:rows, :columns] != bent.mask[:rows, :columns]).mean() > 0.01
    still = selfplay.warp(reference, generator(seed), 0.0)
    np.testing.assert_array_equal(still.mask, reference.mask)
    np.testing.assert_array_equal(still.picture, reference.picture)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_warp_cuts_nothing_off(seed: int):
    """The outermost pixels of a picture, a colour for each side, are all still there."""
    picture, sides = np.zeros((60, 80, 3), np.uint8), np.diag([200, 200, 200]).tolist()
    picture[:, :3], picture[:, -3:], picture[:3] = sides
    picture[-3:] = (200, 200, 0)
    reference = reference_of(np.full((60, 80), 255, np.uint8), picture)
    bent = selfplay.warp(reference, generator(seed), 0.05)
    for colour in (*sides, (200, 200, 0)):
        before, after = (
            np.count_nonzero(np.abs(r.picture.astype(int) - colour).max(axis=-1) < 60)
            for r in (reference, bent)
        )
        assert after > 0.6 * before


def test_each_side_bends_by_its_own_length():
    reference = reference_of(np.full((10, 400), 255, np.uint8))
    for seed in SEEDS:
        bent = selfplay.warp(reference, generator(seed), 0.05)
        assert bent.mask.shape[0] <= 12 and abs(area(bent) / area(reference) - 1) < 0.25


def test_a_change_that_would_lose_the_instance_is_left_out():
    thin = reference_of(np.eye(29, dtype=np.uint8) * 255)
    assert selfplay.rescale(thin, generator(0), (0.1, 0.1)) is thin


@pytest.mark.parametrize("hidden", [0.0, 0.1, 0.5, 0.99])
def test_occlusion_keeps_its_bound(hidden: float):
    reference = reference_of(blob())
    shares = []
    for seed in range(60):
        changed = selfplay.occlude(reference, generator(seed), hidden)
        check(changed)
        assert changed.mask.shape == reference.mask.shape
        assert not (changed.mask & ~reference.mask).any()
        kept = changed.mask > 0
        np.testing.assert_array_equal(changed.picture[kept], reference.picture[kept])
        shares.append(1 - area(changed) / area(reference))
    assert min(shares) >= 0 and max(shares) <= hidden
    assert hidden == 0 or (max(shares) > 0.8 * hidden and np.mean(shares) > 0.35 * hidden)


def test_what_is_hidden_is_a_rectangle_or_an_ellipse():
    reference = reference_of(np.full((80, 80), 255, np.uint8))
    fills = []
    for seed in range(200):
        y, x = np.nonzero(selfplay.occlude(reference, generator(seed), 0.2).mask == 0)
        if len(y) > 300 and y.min() > 0 and x.min() > 0 and y.max() < 79 and x.max() < 79:
            fills.append(len(y) / np.ptp(y) / np.ptp(x))
    fills = np.array(fills)
    boxes = np.abs(fills - 1) < 0.15
    assert 0.2 < boxes.mean() < 0.8
    assert np.abs(fills[~boxes] - np.pi / 4).max() < 0.09


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_is_one_line_for_all_levels(seed: int):
    levels = np.repeat(np.arange(60, 190, dtype=np.uint8)[None, :, None], 3, axis=2)
    reference = reference_of(np.full((1, 130), 255, np.uint8), levels)
    changed = selfplay.jitter(reference, generator(seed), 0.1, 0.2)
    old, new = levels[0, :, 0].astype(float), changed.picture[0, :, 0].astype(float)
    gain, offset = np.polyfit(old, new, 1)
    assert np.abs(new - gain * old - offset).max() < 0.6 and abs(gain - 1) < 0.2 + 5e-3
    assert 0.5 < abs(gain * 127.5 + offset - 127.5) < 0.1 * 255 + 0.5
    np.testing.assert_array_equal(changed.mask, reference.mask)


@pytest.mark.parametrize(("height", "width"), [(60, 84), (61, 83), (1, 5)])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_shuffle_permutes_patches(height: int, width: int, n: int):
    mask = blob(height, width)
    mask[0, 0] = mask[-1, -1] = 255
    reference = reference_of(mask, noise((height, width, 3)) // 2)
    shuffled = selfplay.shuffle(reference, generator(1), (n, n))
    check(shuffled)
    height, width = shuffled.mask.shape
    assert height % n == width % n == 0
    assert 0 <= height - reference.mask.shape[0] < n and 0 <= width - reference.mask.shape[1] < n

    def patches(changed: Reference) -> list[bytes]:
        rows, columns = height - changed.mask.shape[0], width - changed.mask.shape[1]
        picture = np.pad(changed.picture, ((0, rows), (0, columns), (0, 0)), constant_values=255)
        both = np.dstack([picture, np.pad(changed.mask, ((0, rows), (0, columns)))])
        return [
            patch.tobytes()
            for strip in np.split(both, n, axis=0)
            for patch in np.split(strip, n, axis=1)
        ]

    before, after = patches(reference), patches(shuffled)
    assert sorted(before) == sorted(after)
    if len(set(before)) > 4:
        assert before != after


def test_the_number_of_patches_takes_its_whole_range():
    reference = reference_of(np.full((1, 1), 255, np.uint8))
    sides = {selfplay.shuffle(reference, generator(s), (2, 5)).mask.shape for s in range(40)}
    assert sides == {(n, n) for n in (2, 3, 4, 5)}


def test_the_margin_is_white():
    framed = selfplay.frame(reference_of(blob(40, 20)), generator(0), 0.1)
    assert framed.mask.shape == (48, 28)
    np.testing.assert_array_equal(framed.mask[4:-4, 4:-4], reference_of(blob(40, 20)).mask)
    check(framed)


@pytest.mark.parametrize(
    "name", ["crop", "flip", "rotate", "rescale", "warp", "occlude", "jitter", "shuffle"]
)
def test_each_change_has_a_switch(name: str):
    mask = blob()
    plain = reference_of(mask)
    always = dataclasses.replace(SelfPlay.off(), **{name: 1.0})
    changed = make_reference(page(mask), mask, always, generator(0))
    assert changed.picture.shape != plain.picture.shape or (changed.picture != plain.picture).any()
    rarely = dataclasses.replace(SelfPlay.off(), **{name: 0.25})
    made = (make_reference(page(mask), mask, rarely, generator(s)).picture for s in range(60))
    assert 0.55 < np.mean([np.array_equal(each, plain.picture) for each in made]) < 0.95


def test_what_is_cut_from_the_page_is_never_a_copy():
    mask = blob()
    slight = dataclasses.replace(SelfPlay.off(), rotate=0.01, shuffle=0.01)
    plain = reference_of(mask).picture
    for seed in range(20):
        open_, hidden = (
            play(page(mask), mask, slight, generator(seed), disguise=yes).reference.picture
            for yes in (False, True)
        )
        assert not np.array_equal(hidden, plain)
        assert np.array_equal(open_, plain) or seed
    never = play(page(mask), mask, SelfPlay.off(), generator(0), disguise=True)
    np.testing.assert_array_equal(never.reference.picture, plain)


def test_patches_never_stay_where_they_were():
    mask = np.full((8, 8), 255, np.uint8)
    for seed in range(60):
        whole = Reference(page(mask), mask)
        assert not np.array_equal(shuffle(whole, generator(seed), (2, 2)).picture, whole.picture)


def test_the_truth_is_without_jitter():
    mask = blob()
    config = dataclasses.replace(SelfPlay(), jitter=1.0)
    played = play(page(mask), mask, config, generator(3))
    still = play(page(mask), mask, dataclasses.replace(config, jitter=0.0), generator(3))
    np.testing.assert_array_equal(played.truth, still.reference.picture)
    assert (played.reference.picture != played.truth).any()


def test_a_window_shows_half_of_the_instance_at_least():
    mask = blob()
    whole = reference_of(mask)
    sizes = []
    for seed in range(40):
        cut = crop(whole, generator(seed), (0.5, 0.9))
        check(cut)
        sizes.append(cut.mask.size)
        assert 2 * np.count_nonzero(cut.mask) >= np.count_nonzero(whole.mask)
    assert np.mean(np.array(sizes) < whole.mask.size) > 0.5


def test_an_empty_mask_is_refused():
    mask = np.full((5, 5), 127, np.uint8)
    with pytest.raises(ValueError, match="above 127, got at most 127; leave such instances out"):
        make_reference(page(mask), mask, SelfPlay(), generator(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.5),
        ("shuffle", -0.1),
        ("degrees", (30.0, -30.0)),
        ("factor", (0.0, 1.0)),
        ("bend", 0.06),
        ("hidden", 1.0),
        ("margin", -0.1),
        ("brightness", 1.1),
        ("contrast", -0.1),
        ("patches", (0, 8)),
    ],
)
def test_settings_are_checked(field: str, value):
    with pytest.raises(ValueError, match=rf"SelfPlay\.{field}: expected .* got"):
        SelfPlay(**{field: value})
