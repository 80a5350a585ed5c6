"""Colours under the sketch's own lines."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from oracles.case_folders import save
from PIL import Image

from magiccolor_jax import cli
from magiccolor_jax.data.transforms import fit_page, place
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.finishing import finish, layers
from magiccolor_jax.types import Sizes

HEIGHT, WIDTH = 600, 800
RECIPE = Recipe.paper()
FIT = fit_page((HEIGHT, WIDTH), RECIPE, Sizes(page=128, canvas=128, reference=112, clip=32))
LEFT, RIGHT, GREEN = (210, 60, 50), (60, 80, 200), (90, 170, 90)


def drawing():
    """Two boxes side by side, one line between them, and one of another colour to the right."""
    sketch = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    target = sketch.copy()
    boxes = {LEFT: (100, 150, 300, 450), RIGHT: (300, 150, 500, 450), GREEN: (560, 150, 700, 450)}
    for color, (left, top, right, bottom) in boxes.items():
        cv2.rectangle(target, (left, top), (right, bottom), color, -1)
        cv2.rectangle(sketch, (left, top), (right, bottom), (0, 0, 0), 3, cv2.LINE_AA)
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 150:451, 100:501] = 255
    masks[1, 150:451, 560:701] = 255
    return sketch, target, list(masks)


def network_page(target, sketch):
    """What a network that is right makes of it: small, its lines grey, blurred and noisy."""
    lined = np.minimum(target, sketch)
    page = cv2.GaussianBlur(place(lined, FIT, 255), (0, 0), 0.8)
    return page + np.random.default_rng(0).normal(0, 3, page.shape).astype(np.float32)


def between_lines():
    """Where the drawing's colours must be whole: up to two pixels from the lines' edges."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for left, right in ((104, 296), (305, 496), (564, 696)):
        inside[155:446, left:right] = True
    return inside


def reaching(pixels):
    return dataclasses.replace(RECIPE, finish_reach=pixels)


@pytest.fixture(scope="module", params=[2, 16])
def done(request):
    sketch, target, masks = drawing()
    return finish(network_page(target, sketch), sketch, masks, FIT, reaching(request.param))


def test_colours_are_whole_up_to_the_lines(done):
    """The two boxes share a mask: the line alone parts them."""
    _, target, masks = drawing()
    inside = between_lines()
    error = np.abs(done.colors.astype(int) - target)[inside]
    assert error.max() <= 20 and error.mean() < 3
    blurred = cv2.resize(network_page(target, drawing()[0])[FIT.placed.slices], (WIDTH, HEIGHT))
    assert np.abs(blurred - target)[inside].max() > 80


def test_lines_are_the_sketchs_own(done):
    sketch, _, masks = drawing()
    black = (sketch == 0).all(axis=2)
    assert not done.picture[black].any() and black.sum() > 1000
    assert (done.lines[black] == (0, 0, 0, 255)).all()
    marked = np.any(np.array(masks) > 0, axis=0)
    np.testing.assert_array_equal(done.picture[~marked], sketch[~marked])
    share = done.picture[marked] / np.maximum(done.colors[marked], 1)
    assert np.abs(share - sketch[marked] / 255).max() < 0.02


def test_everywhere_means_the_ground_too():
    sketch, target, masks = drawing()
    target[:100] = (250, 240, 200)
    page = network_page(target, sketch)
    kept = finish(page, sketch, masks, FIT, RECIPE).picture[20, 20]
    whole = finish(page, sketch, masks, FIT, RECIPE, whole=True).picture[20, 20]
    assert (kept == 255).all() and np.abs(whole.astype(int) - (250, 240, 200)).max() <= 6
    no_masks = finish(page, sketch, [], FIT, RECIPE).picture[20, 20]
    assert (no_masks == whole).all()


@pytest.mark.parametrize("kind", ["chalk", "grey paper", "red pencil"])
def test_whatever_it_was_drawn_with(kind):
    """Chalk becomes black lines; grey paper takes the whole colour; a red line stays red."""
    sketch, target, masks = drawing()
    drawn = {
        "chalk": 255 - sketch,
        "grey paper": (sketch * 0.8).astype(np.uint8),
        "red pencil": np.maximum(sketch, np.uint8([200, 0, 0])),
    }[kind]
    done = finish(network_page(target, sketch), drawn, masks, FIT, RECIPE)
    assert np.abs(done.picture[300, 200].astype(int) - LEFT).max() <= 8
    line = done.picture[300, 300]
    assert (line[0] > 60 and line[1] < 10) if kind == "red pencil" else line.max() < 10


@pytest.mark.parametrize("color", [(0, 0, 0), (120, 120, 120), (200, 0, 0)])
def test_layers_make_up_the_page(color):
    """With black, grey and red lines; antialiased ones among them."""
    sketch, target, masks = drawing()
    sketch = np.maximum(sketch, np.uint8(color))
    done = finish(network_page(target, sketch), sketch, masks, FIT, RECIPE)
    parts = layers(done)
    assert list(parts) == ["lines", "colors", "flat_1", "mask_1", "flat_2", "mask_2"]
    for number in (1, 2):
        np.testing.assert_array_equal(parts[f"mask_{number}"], masks[number - 1])
        np.testing.assert_array_equal(parts[f"flat_{number}"][..., 3], masks[number - 1])
    marked = np.any(np.array(masks) > 0, axis=0)
    np.testing.assert_array_equal(parts["colors"][..., 3] > 0, marked)
    pages = []
    for names in (("flat_1", "flat_2", "lines"), ("colors", "lines")):
        page = Image.new("RGBA", (WIDTH, HEIGHT), "white")
        for name in names:
            page.alpha_composite(Image.fromarray(parts[name]))
        pages.append(np.asarray(page)[..., :3].astype(int))
    np.testing.assert_array_equal(*pages)
    if color == (0, 0, 0):  # black only takes away, in a layer as on the page
        assert np.abs(pages[0] - done.picture)[marked].max() <= 2
    laid_on_white = Image.new("RGBA", (WIDTH, HEIGHT), "white")
    laid_on_white.alpha_composite(Image.fromarray(parts["lines"]))
    assert np.abs(np.asarray(laid_on_white)[..., :3].astype(int) - sketch).max() <= 6


def test_a_page_without_masks_is_one_layer_of_colours():
    sketch, target, _ = drawing()
    parts = layers(finish(network_page(target, sketch), sketch, [], FIT, RECIPE))
    assert list(parts) == ["lines", "colors"] and (parts["colors"][..., 3] == 255).all()


def test_clouds_within_the_reach_go_away():
    """Clouds of eight pixels of the network's page; for that, no colour crosses a line."""
    sketch, target, masks = drawing()
    rng = np.random.default_rng(0)
    clouds = cv2.resize(rng.normal(0, 20, (16, 16, 3)), FIT.bucket[::-1])
    page = network_page(target, sketch) + clouds
    inside = between_lines()

    def error(reach):
        colors = finish(page, sketch, masks, FIT, reaching(reach)).colors.astype(float)
        return np.abs(colors - target)[inside].mean()

    errors = [error(reach) for reach in (1, 4, 16)]
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2], errors


@pytest.mark.parametrize("reach", [2, 64])
@pytest.mark.parametrize("pair", [(1, 4), (2, 5), (3, 0), (1, 16), (5, 10)])
def test_no_edge_of_a_mask_lets_colours_through(pair, reach):
    """Whatever the numbers of neighbours; no line parts them."""
    target = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    target[100:500, 200:400] = LEFT
    if pair[1]:
        target[100:500, 400:600] = RIGHT
    masks = np.zeros((max(pair), HEIGHT, WIDTH), np.uint8)
    masks[pair[0] - 1, 100:500, 200:400] = 255
    if pair[1]:
        masks[pair[1] - 1, 100:500, 400:600] = 255
    sketch = np.full_like(target, 255)
    recipe = reaching(reach)
    done = finish(network_page(target, sketch), sketch, list(masks), FIT, recipe)
    error = np.abs(done.picture.astype(int) - target)[110:490, 210:590]
    assert error.max() < 45  # where edges are no edges to it: 91


@pytest.mark.parametrize(("line", "reach", "most"), [(232, 8, 4), (232, 64, 12), (None, 64, 4)])
def test_large_pages_hold_pale_lines_and_narrow_masks(line, reach, most):
    """A strip of ten pixels of the network's page beside one of another colour: a pale line parts
    them in one mask, or nothing but their masks' edge."""
    side, strip = 1500, slice(700, 760)
    target = np.full((side, side, 3), 255, np.uint8)
    target[100:1400, 100:1400] = RIGHT
    target[100:1400, strip] = LEFT
    sketch = np.full_like(target, 255)
    cv2.rectangle(sketch, (100, 100), (1400, 1400), (0, 0, 0), 4)
    masks = [np.zeros((side, side), np.uint8) for _ in range(1 if line else 2)]
    masks[0][100:1400, 100:1400] = 255
    if line:
        for left in (strip.start, strip.stop):
            sketch[100:1400, left - 1 : left + 1] = line
    else:
        masks[1][100:1400, strip] = 255
    fit = fit_page((side, side), RECIPE, Sizes(page=256, canvas=256, reference=112, clip=32))
    done = finish(place(target, fit, 255), sketch, masks, fit, reaching(reach))
    error = np.abs(done.colors[150:1350, 705:755].astype(int) - LEFT)
    assert error.mean() < most, error.mean()


def test_higher_numbers_own_what_two_masks_mark():
    sketch, target, masks = drawing()
    masks[1][150:451, 450:501] = 255
    done = finish(network_page(target, sketch), sketch, masks, FIT, RECIPE)
    assert done.owner[300, 470] == 2 and done.owner[300, 400] == 1


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_any_size(scale):
    """Smaller than the network's page, and of its own size."""
    sketch, target, masks = drawing()
    size = (round(WIDTH * scale * 0.16), round(HEIGHT * scale * 0.16))
    small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (sketch, target, *masks)]
    fit = fit_page(small[0].shape[:2], RECIPE, Sizes(page=128, canvas=128, reference=112, clip=32))
    page = place(small[1], fit, 255)
    done = finish(page, small[0], small[2:], fit, RECIPE)
    assert done.picture.shape == small[0].shape


@pytest.fixture
def case(tmp_path):
    sketch, target, masks = drawing()
    save(tmp_path / "case/sketch.png", sketch)
    for number, mask in enumerate(masks, 1):
        save(tmp_path / f"case/sketch_masks/{number}.png", mask)
        save(tmp_path / f"case/references/{number}.png", target[150:450, 100:500])
    return tmp_path / "case"


def colorize(case, model, out, *words):
    given = [case, "--model", model, "--out", out, "--steps", 1, *words]
    return cli.run(["colorize", *map(str, given), "--compilation-cache", str(out.parent / "cache")])


@pytest.mark.slow
def test_layers_from_the_command_line(case, nano_model, tmp_path, capsys, compile_quickly):
    out = tmp_path / "out"
    assert colorize(case, nano_model, out, "--layers") == 1
    assert "--finish lines" in capsys.readouterr().err
    assert colorize(case, nano_model, out, "--finish", "lines") == 0
    assert not (out / "case.layers").exists()
    assert colorize(case, nano_model, out, "--finish", "lines", "--layers") == 0
    assert sorted(p.stem for p in (out / "case.layers").iterdir()) == sorted(
        ["lines", "colors", "flat_1", "mask_1", "flat_2", "mask_2"]
    )
    page = np.asarray(Image.open(out / "case.png"))
    sketch = drawing()[0]
    np.testing.assert_array_equal(page[:140], sketch[:140])
    assert json.loads((out / "manifest.json").read_text())["recipe"]["finish"] == "lines"
    assert colorize(case, nano_model, out, "--finish", "lines", "--layers") == 0
    assert "0 coloured, 1 done before" in capsys.readouterr().err
    (out / "case.png").unlink()
    save(out / "case.layers/mine.png", sketch)
    assert colorize(case, nano_model, out, "--finish", "lines", "--layers") == 1
    assert "none of ours (mine.png)" in capsys.readouterr().err
    (out / "case.layers/mine.png").rename(tmp_path / "mine.png")
    shutil.copy(out / "case.layers/mask_2.png", out / "case.layers/mask_3.png")
    assert colorize(case, nano_model, out, "--finish", "lines", "--layers") == 0
    assert not (out / "case.layers/mask_3.png").exists()
