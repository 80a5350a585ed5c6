"""Composed pages: whole cases, the same for a seed, coloured so that references can be told."""

import json

import numpy as np
import pytest
from compose_cases import Args, compose_cases

from magiccolor_jax.data.cases import MASK_MIDDLE, read_case
from magiccolor_jax.evaluation.palettes import leakage, own_closest

SIDE = 48
"""Pixels of a drawing."""


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    """Eight drawings, each a disc of three colours with an outline, packed as the real ones."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2 + 0.5
    radius = np.hypot(y, x)
    indices, lines, palettes, meta = [], [], [], []
    for number in range(8):
        disc = np.where(radius < 20, 1 + (x > 2 * number - 8) + (y > 0), 0)
        indices.append(disc.astype(np.uint8))
        lines.append(np.where(np.abs(radius - 20) < 1.2, 0, 255).astype(np.uint8))
        palettes.append(np.random.default_rng(number).integers(40, 220, (64, 3), np.uint8))
        sizes = {"chr": 0.9, "ink": 0.0, "fill": 0.8, "asp": 1.0, "ncol": 3}
        source = {"id": f"disc-{number}", "src": "test", "lic": "CC0-1.0", "first": number, "n": 1}
        meta.append(source | sizes)
    path = tmp_path_factory.mktemp("art") / "art.npz"
    arrays = {"palette": np.stack(palettes), "idx": np.stack(indices), "line": np.stack(lines)}
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)
    return path


@pytest.fixture(scope="module")
def pages(art, tmp_path_factory):
    out = tmp_path_factory.mktemp("cases")
    return compose_cases(Args(art=art, out=out, count=4, side=96))


def truth(folder):
    target = read_case(folder).target
    assert target is not None
    return target


def drawings(folder):
    return [drawn["id"] for drawn in json.loads((folder / "provenance.json").read_text())]


def test_every_page_is_a_whole_case(pages):
    for folder in pages:
        case = read_case(folder)
        target = truth(folder)
        assert case.sketch.shape == target.shape == (96, 96, 3)
        assert 2 <= len(case.references) <= 3
        assert len(case.sketch_masks) == len(drawings(folder))
        masks = np.stack([mask > MASK_MIDDLE for mask in case.sketch_masks])
        assert masks.sum(axis=0).max() == 1, "masks do not overlap"
        assert (target[~masks.any(axis=0)] > 200).mean() > 0.9, "the ground is white"


def test_every_other_page_shows_one_drawing_twice(pages):
    twins = [drawings(folder)[0] == drawings(folder)[1] for folder in pages]
    assert twins == [True, False, True, False]


def test_the_truth_is_nearest_to_its_own_references(pages):
    for folder in pages:
        case = read_case(folder)
        assert own_closest(leakage(truth(folder), case)).all()


def test_the_sketch_shows_lines_and_no_colour(pages):
    case = read_case(pages[0])
    assert (case.sketch == case.sketch[..., :1]).all()
    assert case.sketch.min() == 0
    assert (case.sketch > 250).mean() > 0.8


def test_a_seed_gives_the_same_pages(art, pages, tmp_path):
    again = compose_cases(Args(art=art, out=tmp_path / "again", count=1, side=96))
    other = compose_cases(Args(art=art, out=tmp_path / "other", count=1, side=96, seed=1))
    first, same, different = (truth(f[0]) for f in (pages, again, other))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, different)


def test_what_exists_is_not_overwritten(art, pages):
    before = {path: path.stat().st_mtime_ns for path in pages[0].rglob("*.png")}
    folders = compose_cases(Args(art=art, out=pages[0].parent, count=1, side=96))
    assert folders == [pages[0].parent / "page_0"]
    assert before == {path: path.stat().st_mtime_ns for path in pages[0].rglob("*.png")}
