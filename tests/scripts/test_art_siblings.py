"""Drawings in the same colours, joined to groups."""

import numpy as np
from art_drawing import COLORS, Group
from art_siblings import MOST, Entry, join_siblings

from magiccolor_jax.data.art import split_of

RED, GREEN, BLUE, TEAL = (200, 40, 40), (60, 160, 60), (50, 70, 200), (20, 130, 140)
SIDE = 12


def entry(name: str, *colors: tuple[int, int, int], shares=(60, 40, 44)) -> Entry:
    """A drawing whose pixels have these colours."""
    palette = np.zeros((COLORS + 1, 3), np.uint8)
    palette[1 : len(colors) + 1] = colors
    pixels = np.repeat(np.arange(1, len(colors) + 1, dtype=np.uint8), shares[: len(colors)])
    indices = np.resize(pixels, (1, SIDE, SIDE))
    meta = {"id": f"toys/{name}", "src": "toys", "lic": "MIT", "n": 1, "ncolors": len(colors)}
    return Entry(meta, Group(palette, indices, 255 - indices, {}))


def named(split: str, count: int) -> list[str]:
    """Subjects of a split."""
    names = (f"s{number}" for number in range(999))
    found = (n for n in names if split_of({"src": "toys", "id": f"toys/{n}"}) == split)
    return [next(found) for _ in range(count)]


def test_drawings_in_the_same_colours_become_one_group():
    a, b, c = named("train", 3)
    near = tuple(channel + 2 for channel in BLUE)
    joined = join_siblings(
        [entry(a, RED, GREEN, BLUE), entry(b, RED, GREEN, TEAL), entry(c, near, RED, GREEN)]
    )
    assert [e.meta["id"] for e in joined] == [f"toys/{a}", f"toys/{b}"]
    meta, group = joined[0]
    assert meta["n"] == 2 and meta["siblings"] == [f"toys/{c}"] and meta["ncolors"] == 3
    shown = group.palette[group.indices[1]].reshape(-1, 3)[:1]
    np.testing.assert_array_equal(shown, [BLUE], "near colours became one")
    assert group.lines.shape == group.indices.shape == (2, SIDE, SIDE)


def test_held_out_subjects_meet_no_others():
    (kept,), (held,) = named("train", 1), named("objects", 1)
    colors = RED, GREEN, BLUE
    assert len(join_siblings([entry(kept, *colors), entry(held, *colors)])) == 2


def test_groups_stay_small_and_poor_drawings_alone():
    names = named("train", MOST + 1)
    rich = join_siblings([entry(name, RED, GREEN, BLUE) for name in names])
    assert [e.meta["n"] for e in rich] == [MOST, 1]
    assert len(join_siblings([entry(name, RED, GREEN) for name in names])) == MOST + 1


def test_new_colours_join_the_palette():
    a, b = named("train", 2)
    shares = (60, 40, 41, 3)
    one, two = entry(a, RED, GREEN, BLUE), entry(b, RED, GREEN, BLUE, TEAL, shares=shares)
    ((meta, group),) = join_siblings([one, two])
    assert meta["ncolors"] == 4 and tuple(group.palette[4]) == TEAL
    assert (group.indices[1] == 4).sum() == 3
