"""Instances of one frame are found again in another, whatever their order."""

import cv2
import numpy as np
import pytest
from oracles.drawn_clips import BLUE, GREEN, NIGHT, PAPER, RED, VIOLET, frame
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.checkpoint import ModelConfig, save_network, write_config
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.prepare.matching import by_colors, by_dinov2, overlaps

COLORS = (RED, GREEN, BLUE, VIOLET)


def disc(place, radius=14, shape=(96, 160)):
    return cv2.circle(np.zeros(shape, np.uint8), place, radius, 1, -1) > 0


def seen(look, places, colors, ground=PAPER):
    picture = frame(list(zip(places, colors, strict=True)), ground)
    return look.see(picture, [disc(place) for place in places])


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("dinov2"), DINOv2Config.nano()
    save_network(folder / "dinov2.safetensors", seeded_network(DINOv2, config, maps.DINOV2))
    write_config(folder, ModelConfig(networks={"dinov2": config}))
    return folder


@pytest.fixture(params=["colours", "dinov2"])
def look(request):
    return (
        by_colors() if request.param == "colours" else by_dinov2(request.getfixturevalue("dinov2"))
    )


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_instances(look, seed):
    random = np.random.default_rng(seed)
    before = [(25, 30), (65, 60), (100, 30), (135, 60)]
    order = random.permutation(4).tolist()
    moved = [(x + 6, y - 5) for x, y in before]
    first = seen(look, before, COLORS)
    second = seen(look, [moved[i] for i in order], [COLORS[i] for i in order])
    assert look.match(first, second) == [(i, order.index(i)) for i in range(4)]


def test_colours_are_followed_through_crossing_places():
    look, places = by_colors(), [(40, 48), (120, 48)]
    first, second = seen(look, places, (RED, BLUE)), seen(look, places, (BLUE, RED))
    assert look.match(first, second) == [(0, 1), (1, 0)]
    # Another light changes shares of colours little: the ground is none of the instance.
    assert look.match(first, seen(look, places, (BLUE, RED), NIGHT)) == [(0, 1), (1, 0)]


def test_twins_are_told_by_their_places(look):
    first = seen(look, [(40, 48), (120, 48)], (RED, RED))
    second = seen(look, [(115, 50), (45, 46)], (RED, RED))
    assert look.match(first, second) == [(0, 1), (1, 0)]


def test_who_is_not_there_has_no_partner():
    look = by_colors()
    first = seen(look, [(25, 30), (65, 60), (100, 30)], (RED, GREEN, BLUE))
    second = seen(look, [(68, 60), (27, 30)], (GREEN, VIOLET))
    assert look.match(first, second) == [(1, 0)]
    assert look.match(second, first) == [(0, 1)]


def test_an_instance_does_not_grow_fast():
    look, picture = by_colors(), np.full((96, 160, 3), RED, np.uint8)
    small, large = (look.see(picture, [disc((80, 48), radius)]) for radius in (10, 25))
    assert look.match(small, small) == [(0, 0)] and look.match(small, large) == []


def test_features_have_length_1(look):
    found = seen(look, [(40, 48), (120, 48)], (RED, BLUE))
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.boxes[0], (34 / 96, 26 / 160, 63 / 96, 55 / 160))


def test_overlap_of_boxes():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], [0.5, 0.5, 1, 1]])
    found = overlaps(boxes, boxes)
    np.testing.assert_allclose(found, [[1, 1 / 7, 0], [1 / 7, 1, 1 / 7], [0, 1 / 7, 1]])


def test_a_thin_instance_has_features(look):
    line = np.zeros((96, 160), bool)
    line[10, 5:150] = True
    assert np.isfinite(look.see(frame([]), [line]).features).all()


def test_a_folder_without_the_network(tmp_path):
    write_config(tmp_path, ModelConfig(networks={}))
    with pytest.raises(ValueError, match="expected a folder with DINOv2"):
        by_dinov2(tmp_path)
