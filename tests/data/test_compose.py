"""Pages that are composed of packed drawings."""

import json

import numpy as np
import pytest
from oracles.art_library import SIDE, write_library

from magiccolor_jax.data import compose as composing
from magiccolor_jax.data.art import NEVER_TRAINED, SPLITS, read_art, split_of
from magiccolor_jax.data.compose import COUNTS, VISIBLE, ArtScenes, warped
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("art") / "art.npz")


@pytest.fixture(scope="module")
def scenes(library):
    return open_source(f"art:{library}")


def test_splits_share_no_subject_and_no_style(library):
    art = read_art(library)
    found = {split: [art.meta[g] for g in art.groups(split)] for split in SPLITS}
    sources = {split: {m["src"] for m in metas} for split, metas in found.items()}
    assert sources["sources"] == {"fxemoji"} and "fxemoji" not in sources["train"]
    assert not any(set(NEVER_TRAINED) & each for each in sources.values())
    subjects = {split: {m["id"].split("/")[1] for m in metas} for split, metas in found.items()}
    assert not subjects["train"] & subjects["objects"]
    assert split_of({"src": "noto", "id": "noto/cat"}) == split_of(
        {"src": "fluent", "id": "fluent/cat"}
    )


def test_about_one_subject_in_twenty_is_held_out():
    metas = [{"src": "noto", "id": f"noto/{i}"} for i in range(4000)]
    assert 150 < sum(split_of(meta) == "objects" for meta in metas) < 250


def test_a_scene_is_a_function_of_its_number(library, scenes):
    one, again = scenes[7], ArtScenes(library)[7]
    other = scenes[8]
    np.testing.assert_array_equal(one.target, again.target)
    np.testing.assert_array_equal(one.lines, again.lines)
    assert scenes.fingerprint() == ArtScenes(library).fingerprint()
    assert one.target.shape == other.target.shape and np.any(one.target != other.target)
    with pytest.raises(IndexError):
        scenes[len(scenes)]


def test_whose_drawings_are_shown_is_known(scenes, monkeypatch):
    """Twins among them."""
    drawn, draw = [], composing._draw_rows
    monkeypatch.setattr(
        composing, "_draw_rows", lambda meta, rng: drawn.append(meta["src"]) or draw(meta, rng)
    )
    for index in range(12):
        drawn.clear()
        assert scenes[index] and scenes.shown(index) == drawn


def test_outlines_tell_what_is_composed(scenes):
    shares = np.bincount(scenes.counts, minlength=6)[1:] / len(scenes)
    np.testing.assert_allclose(shares, list(COUNTS.values()), atol=0.01)
    for index in range(30):
        outline, scene = scenes.outline(index), scenes[index]
        assert (outline.height, outline.width) == scene.target.shape[:2] == (SIDE, SIDE)
        assert outline.instances == len(scene.masks) == len(scene.views)
        assert all(mask.max() == 255 for mask in scene.masks)
        assert np.sum([mask > 0 for mask in scene.masks], axis=0).max() == 1


def test_page_and_reference_show_the_same_colours(scenes):
    """Inside, away from every edge; neighbours must not show through either."""
    for index in range(30):
        scene = scenes[index]
        for mask, (view,) in zip(scene.masks, scene.views, strict=True):
            colors = {tuple(c) for c in view.picture[view.mask > 0]}
            shown, counts = np.unique(scene.target[mask > 0], axis=0, return_counts=True)
            most = tuple(shown[counts.argmax()])
            assert min(np.abs(np.subtract(most, c)).max() for c in colors) <= 1
    assert (scene.target[np.all([m == 0 for m in scene.masks], axis=0)] > 250).mean() > 0.8


def test_lines_show_no_colour(scenes):
    """A disc's inside is paper, whatever its colour, and its outline is ink."""
    for index in range(20):
        lines = scenes[index].lines
        assert (lines[..., 0] == lines[..., 1]).all() and 0.6 < (lines > 250).mean() < 0.99
        assert lines.min() < 128


def test_twins_differ_in_colour_alone(library, monkeypatch):
    """On the page they are the same row of the library."""
    taken, draw = [], composing.compose

    def noted(art, rows, palettes, rng):
        taken.append((rows, palettes))
        return draw(art, rows, palettes, rng)

    monkeypatch.setattr(composing, "TWINS", 1.0)
    monkeypatch.setattr(composing, "compose", noted)
    source = ArtScenes(library)
    for index in np.flatnonzero(source.counts > 1)[:20]:
        source[int(index)]
        rows, palettes = taken[-1]
        assert rows[0].shown == rows[1].shown and np.any(palettes[0] != palettes[1])


def test_what_cannot_be_laid_out_is_told(tmp_path):
    """A stroke of one pixel has no pixel that is mostly covered once it is smaller."""
    path = write_library(tmp_path / "art.npz")
    with np.load(path) as stored:
        parts = dict(stored)
    parts["idx"][:] = 0
    parts["idx"][:, 24, 10:40:7] = 1
    np.savez(path, **parts)
    source = ArtScenes(path)
    with pytest.raises(CaseError, match=r"none in 12 rounds"):
        for index in range(20):
            source[index]


def test_small_libraries_are_refused(tmp_path):
    path = write_library(tmp_path / "art.npz", {"noto": ["cat", "dog"], "fxemoji": ["cat"]})
    with pytest.raises(CaseError, match=r"at least so many subjects.*got [12]"):
        open_source(f"art:{path}")
    with pytest.raises(CaseError, match="of the split 'sources', got 1"):
        open_source(f"art-sources:{path}")


def test_other_drawings_have_another_fingerprint(library, tmp_path):
    with np.load(library) as stored:
        parts = dict(stored)
    parts["line"] = 255 - parts["line"]
    np.savez(tmp_path / "other.npz", **parts)
    assert ArtScenes(tmp_path / "other.npz").fingerprint() != ArtScenes(library).fingerprint()


def test_every_instance_is_seen(library, monkeypatch):
    """However crowded: the page is laid out again, smaller, until it is."""
    sizes, draw = [], composing.warped

    def noted(*args):
        sizes.append((draw(*args).alpha > 0.5).sum())
        return draw(*args)

    monkeypatch.setattr(composing, "CROWDED", 1.0)
    monkeypatch.setattr(composing, "warped", noted)
    monkeypatch.setattr(composing, "_places", lambda shape, *_: identity(shape))
    source = ArtScenes(library)
    for index in range(30):
        scene = source[index]
        last = sizes[-len(scene.masks) :]
        seen = [(mask > 0).sum() for mask in scene.masks]
        assert all(s >= VISIBLE * size for s, size in zip(seen, last, strict=True))


def identity(shape):
    side = max(shape)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return x, y


def test_a_warp_keeps_area_and_colour(library):
    art = read_art(library)
    for seed in range(10):
        layer = warped(
            art.indices[0], art.lines[0], art.palettes[0], 40.0, np.random.default_rng(seed)
        )
        drawn = (art.indices[0] > 0).any(axis=0).sum()
        area = (art.indices[0] > 0).sum() * (40 / drawn) ** 2
        assert 0.75 * area < layer.alpha.sum() < 1.3 * area
        inside = layer.alpha > 0.999
        shown = {tuple(c) for c in np.rint(layer.color[inside]).astype(int)}
        assert {tuple(c) for c in art.palettes[0][1:3].astype(int)} <= shown


def test_scenes_are_trained_on_like_any_others(scenes):
    maker = Maker(Play(), Recipe.paper(), Sizes(page=64, reference=28, clip=28), instances=5)
    sample = maker(scenes[3], np.random.default_rng(0))
    assert sample.case.valid.sum() >= 1 and sample.target.shape[1:3] == (64, 64)


DAMAGES = {
    "no line": lambda parts: parts.pop("line"),
    "short": lambda parts: parts.update(meta=changed_meta(parts, slice(None, -1))),
    "no source": lambda parts: parts.update(meta=changed_meta(parts, slice(None), "src")),
    "float": lambda parts: parts.update(idx=parts["idx"].astype(np.float32)),
    "one colour": lambda parts: parts.update(palette=parts["palette"][:, :1]),
    "empty drawing": lambda parts: parts["idx"].__setitem__(3, 0),
}


def changed_meta(parts, kept, without=None):
    meta = json.loads(str(parts["meta"]))[kept]
    return np.array(json.dumps([{k: v for k, v in m.items() if k != without} for m in meta]))


@pytest.mark.parametrize("damage", ["nothing", "text", "torn", *DAMAGES])
def test_what_is_no_library_is_refused(library, tmp_path, damage):
    path = tmp_path / "art.npz"
    with np.load(library) as stored:
        parts = dict(stored)
    if damage in DAMAGES:
        DAMAGES[damage](parts)
        np.savez_compressed(path, **parts)
    elif damage == "torn":
        np.savez_compressed(path, **parts)
        content = bytearray(path.read_bytes())
        content[len(content) // 3 : len(content) // 2] = bytes(
            len(content) // 2 - len(content) // 3
        )
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("no archive")
    else:
        path.touch()
    with pytest.raises(CaseError, match="a library of drawings is an .npz"):
        open_source(f"art:{path}")
