"""Scenes become samples: what is drawn, what is kept together, what is refused."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from magiccolor_jax.data.palette import PalettePlay, srgb_to_oklab
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.samples import Maker, Play, Shape, join
from magiccolor_jax.data.scenes import Outline, Scene, View
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

SIZES = Sizes(page=128, canvas=128, reference=56, patch=14, clip=32)
RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 180, 60)


def block(shape, top, left, height, width):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask


def scene(shape=(96, 128), views=False, lines=True):
    """Two blocks on white."""
    masks = block(shape, 10, 8, 60, 40), block(shape, 20, 70, 50, 48)
    target = np.full((*shape, 3), 255, np.uint8)
    for mask, colour in zip(masks, (RED, BLUE), strict=True):
        target[mask > 0] = colour
    other = np.full((40, 30, 3), GREEN, np.uint8)
    view = (View(other, np.full((40, 30), 255, np.uint8)),)
    sketch = np.full_like(target, 255)
    sketch[:, ::16] = 0
    made = ((), view) if views else ((), ())
    return Scene("two", Path("two"), target, sketch if lines else None, masks, made)


def make(play=None, given=None, seed=0, **options):
    maker = Maker(play or Play.off(), Recipe.paper(), SIZES, **({"instances": 4} | options))
    return maker(given or scene(), np.random.default_rng(seed))


def of_instance(sample, number):
    """Colours of the target where an instance stands, 0..255."""
    inside = sample.case.instance_map[0] == number
    return np.rint((sample.target[0][inside] + 1) * 127.5)


def of_reference(sample, number):
    """Colours of a reference where its patches count, 0..255."""
    pixels = sample.case.reference_pixels[0, number - 1]
    unit = pixels * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    inside = np.kron(sample.counts[0, number - 1], np.ones((14, 14))) > 0
    return np.rint(255 * unit[inside])


def test_nothing_is_drawn_when_all_is_off():
    sample, again = make(), make(seed=9)
    for x, y in zip(sample.case, again.case, strict=True):
        np.testing.assert_array_equal(x, y)
    assert sample.target.shape == (1, *sample.case.sketch.shape[1:])
    assert sample.case.valid.tolist() == [[True, True]]
    for number, colour in ((1, RED), (2, BLUE)):
        np.testing.assert_allclose(np.median(of_instance(sample, number), axis=0), colour, atol=1)
        np.testing.assert_allclose(np.median(of_reference(sample, number), axis=0), colour, atol=1)


def test_samples_are_a_function_of_the_generator():
    first, again, other = (make(Play(), seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.target, again.target)
    np.testing.assert_array_equal(first.case.reference_pixels, again.case.reference_pixels)
    assert not np.array_equal(first.case.canvas, other.case.canvas)


@pytest.mark.parametrize("seed", range(4))
def test_references_take_part_in_every_recolouring(seed):
    bold = PalettePlay(probability=1.0, tint=0.0)
    sample = make(replace(Play.off(), palette=bold, gamma=(0.8, 1.2)), seed=seed)
    for number, colour in ((1, RED), (2, BLUE)):
        on_page, shown = (
            srgb_to_oklab(np.median(of(sample, number), axis=0)[None].astype(np.uint8))
            for of in (of_instance, of_reference)
        )
        before = srgb_to_oklab(np.uint8([colour]))
        np.testing.assert_allclose(on_page, shown, atol=0.01)
        assert np.linalg.norm(on_page - before) > 0.03


def test_another_picture_stands_in_and_is_recoloured_too():
    play = replace(Play.off(), palette=PalettePlay(probability=1.0, tint=0.0, turn=90.0))
    plain, played = make(given=scene(views=True)), make(play, scene(views=True), seed=2)
    np.testing.assert_allclose(np.median(of_reference(plain, 2), axis=0), GREEN, atol=1)
    assert np.abs(np.median(of_reference(played, 2), axis=0) - GREEN).max() > 20
    none = make(replace(Play.off(), views=0.0), scene(views=True))
    np.testing.assert_allclose(np.median(of_reference(none, 2), axis=0), BLUE, atol=1)


def test_page_lines_and_masks_are_mirrored_together():
    flipped, plain = make(replace(Play.off(), flip=1.0)), make()
    np.testing.assert_array_equal(flipped.target, plain.target[:, :, ::-1])
    np.testing.assert_array_equal(flipped.case.instance_map, plain.case.instance_map[:, :, ::-1])
    different = np.abs(flipped.case.sketch - plain.case.sketch[:, :, ::-1]) > 0.1
    assert different.mean() < 0.01


def test_stage_one_takes_all_instances_together():
    sample = make(instances=1)
    assert sample.case.valid.tolist() == [[True]]
    one = sample.case.instance_map[0] > 0
    assert one.sum() == (make().case.instance_map[0] > 0).sum()
    colours = np.unique(of_reference(sample, 1), axis=0)
    near = [np.abs(colours - c).max(axis=1).min() for c in (RED, BLUE)]
    assert max(near) < 30


def test_no_more_instances_than_the_stage_allows():
    shape = (96, 128)
    masks = tuple(block(shape, 4 + 20 * r, 4 + 40 * c, 16, 36) for r in range(4) for c in range(3))
    target = np.full((*shape, 3), 120, np.uint8)
    many = Scene("many", Path("many"), target, None, masks, ((),) * 12)
    sample = make(given=many, instances=5)
    assert sample.case.valid.sum() == 5 and sample.case.valid.shape == (1, 8)
    others = make(given=many, instances=5, seed=1)
    assert not np.array_equal(sample.case.instance_map, others.case.instance_map)


def test_an_instance_may_be_left_out_but_never_all():
    counts = [make(replace(Play.off(), absent=0.5), seed=s).case.valid.sum() for s in range(20)]
    assert set(counts) == {1, 2}
    assert make(replace(Play.off(), absent=1.0)).case.valid.sum() == 1


def test_the_higher_id_owns_what_masks_share():
    shape = (96, 128)
    whole, part = block(shape, 0, 0, 96, 128), block(shape, 20, 20, 40, 50)
    target = np.full((*shape, 3), 255, np.uint8)
    target[...], target[part > 0] = RED, BLUE
    both = Scene("over", Path("over"), target, target, (whole, part), ((), ()))
    sample = make(given=both)
    assert np.abs(of_instance(sample, 1) - RED).max() < 150  # resized edges mix
    np.testing.assert_allclose(np.median(of_instance(sample, 2), axis=0), BLUE, atol=1)
    hidden = both._replace(masks=(part, whole))
    assert make(given=hidden).case.valid.tolist() == [[True, False]]
    with pytest.raises(CaseError, match="at least one instance"):
        make(given=both._replace(masks=(np.zeros(shape, np.uint8),), views=((),)))


def test_lines_are_stored_or_extracted_from_the_old_colours():
    stored, extracted = make(), make(replace(Play.off(), lines="xdog"))
    assert not np.array_equal(stored.case.sketch, extracted.case.sketch)
    without = make(given=scene(lines=False))
    np.testing.assert_array_equal(without.case.sketch, extracted.case.sketch)
    bold = replace(Play.off(), lines="xdog", palette=PalettePlay(probability=1.0))
    np.testing.assert_array_equal(make(bold, seed=3).case.sketch, extracted.case.sketch)


@pytest.mark.parametrize("shape", [(96, 128), (700, 500), (33, 400), (4000, 90)])
def test_shapes_are_known_before_a_scene_is_read(shape):
    maker = Maker(Play.off(), Recipe.paper(), SIZES, instances=4)
    height, width = shape
    masks = tuple(block(shape, 0, i * width // 3, height, width // 3) for i in range(3))
    target = np.full((*shape, 3), 90, np.uint8)
    given = Scene("s", Path("s"), target, target, masks, ((),) * 3)
    expected = maker.shape_of(Outline(*shape, 3))
    sample = maker(given, np.random.default_rng(0))
    assert Shape(sample.target.shape[1:3], sample.counts.shape[1]) == expected
    assert expected.instances == 4


def test_stage_one_shows_the_frame_that_all_instances_share():
    frame = np.full((40, 60, 3), 255, np.uint8)
    frame[5:35, 5:25], frame[5:35, 35:55] = GREEN, RED
    masks = block((40, 60), 5, 5, 30, 20), block((40, 60), 5, 35, 30, 20)
    views = tuple((View(frame, mask),) for mask in masks)
    sample = make(given=scene()._replace(views=views), instances=1)
    shown = of_reference(sample, 1)
    assert {GREEN, RED} <= {tuple(map(int, colour)) for colour in shown}
    apart = (View(frame, masks[0]),), (View(frame[:, ::-1].copy(), masks[1]),)
    own = of_reference(make(given=scene()._replace(views=apart), instances=1), 1)
    assert GREEN not in {tuple(map(int, colour)) for colour in own}


@pytest.mark.parametrize("instances", [1, 4])
def test_a_view_that_shows_nothing_is_told(instances):
    faint = View(np.full((9, 9, 3), 80, np.uint8), np.full((9, 9), 127, np.uint8))
    given = scene()._replace(views=((faint,), (faint,)))
    with pytest.raises(CaseError, match="values above 127, got at most 127 for instance 1"):
        make(given=given, instances=instances)


def test_masks_of_zeros_and_ones_are_told():
    given = scene()._replace(masks=tuple(mask // 255 for mask in scene().masks))
    with pytest.raises(CaseError, match=r"largest values are \[1, 1\]; export masks as 0 and 255"):
        make(given=given)


def test_measuring_shows_other_pictures_as_they_are():
    samples = [make(Play().calm(), scene(views=True), seed) for seed in range(6)]
    for sample in samples[1:]:
        np.testing.assert_array_equal(
            sample.case.reference_pixels[0, 1], samples[0].case.reference_pixels[0, 1]
        )
        assert (sample.case.reference_pixels[0, 0] != samples[0].case.reference_pixels[0, 0]).any()


def test_colours_of_patches_are_the_targets_and_without_white():
    wild = SelfPlay(jitter=1.0, brightness=0.3)
    for seed in range(4):
        sample = make(replace(Play.off(), selfplay=wild), seed=seed)
        for number, colour in ((1, RED), (2, BLUE)):
            inside = sample.counts[0, number - 1]
            found = (sample.colors[0, number - 1][inside] + 1) * 127.5
            assert inside.any() and np.abs(found - colour).max() < 10  # resampled bytes


def test_no_fringe_keeps_the_old_colour():
    given = scene(lines=False)
    edge = cv2.dilate(given.masks[0], np.ones((3, 3), np.uint8)) - given.masks[0] > 0
    target = given.target.copy()
    target[edge] = 0.6 * 255 + 0.4 * np.array(RED)
    bold = PalettePlay(probability=1.0, turn=180.0, chroma=(1.0, 1.0), tint=0.0)
    turned = []
    for seed in range(8):
        sample = make(replace(Play.off(), palette=bold), given._replace(target=target), seed)
        shown = (sample.target[0, :96, :128] + 1) * 127.5
        hues = [
            np.angle(np.mean(srgb_to_oklab(shown[at].astype(np.uint8)) @ [0, 1, 1j]))
            for at in (edge, given.masks[0] > 0)
        ]
        turned.append(abs(np.angle(np.exp(1j * (hues[0] - hues[1])))))
    assert max(turned) < 0.35


def test_a_sample_may_be_given_the_shape_of_another():
    wanted = Shape((128, 128), 2)
    tall = scene((200, 90))
    sample = Maker(Play.off(), Recipe.paper(), SIZES, instances=4)(
        tall, np.random.default_rng(0), wanted
    )
    assert sample.target.shape == (1, 128, 128, 3) and sample.counts.shape[1] == 2
    three = scene()._replace(masks=(*scene().masks, block((96, 128), 80, 5, 10, 10)))
    three = three._replace(views=((), (), ()))
    fewer = Maker(Play.off(), Recipe.paper(), SIZES, instances=4)(
        three, np.random.default_rng(0), Shape((96, 128), 1)
    )
    assert fewer.case.valid.shape == (1, 1)


def test_measuring_is_calm():
    calm = Play(selfplay=SelfPlay(shuffle=1.0)).calm()
    assert calm.palette.probability == 0 and calm.flip == 0 and calm.selfplay.shuffle == 1.0


def test_samples_of_one_shape_are_joined():
    joined = join([make(), make(seed=1), make(replace(Play.off(), flip=1.0))])
    assert joined.target.shape[0] == joined.counts.shape[0] == 3
    assert all(array.shape[0] == 3 for array in joined.case)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 2.0}, r"Play.flip: expected a number in \[0, 1\], got 2"),
        ({"lines": "canny"}, "Play.lines: expected 'stored' or an extractor"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Play(**wrong)


@pytest.mark.parametrize("seed", range(6))
def test_a_part_of_the_page_shows_some_instance_in_place(seed):
    play = replace(Play.off(), zoom=(0.4, 0.5))
    sample = make(play, seed=seed)
    shown = [n for n in (1, 2) if (sample.case.instance_map[0] == n).any()]
    assert shown and sample.case.valid.sum() == len(shown)
    colours = [RED, BLUE] if len(shown) == 2 else [max((RED, BLUE), key=lambda c: near(sample, c))]
    for number, colour in zip((1, 2), colours, strict=False):
        np.testing.assert_allclose(np.median(of_instance(sample, number), axis=0), colour, atol=1)
    assert sample.target.shape == make(seed=seed).target.shape


def near(sample, colour):
    """Share of the first instance's pixels that have this colour."""
    return np.mean(np.abs(of_instance(sample, 1) - colour).max(axis=1) < 2)
