"""From a picture to lines around the networks, against the authors' steps written out."""

import cv2
import numpy as np
import pytest
from golden_weights import seeded_pictures
from PIL import Image
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.data.samples import Play
from magiccolor_jax.lineart import EXTRACTORS
from magiccolor_jax.lineart.anime2sketch import Anime2SketchConfig, Anime2SketchMethod
from magiccolor_jax.lineart.clahe import clahe
from magiccolor_jax.lineart.informative_drawings import (
    InformativeDrawings,
    InformativeDrawingsConfig,
    InformativeDrawingsMethod,
)
from magiccolor_jax.lineart.method import Contrast, LineArt, XDoGMethod
from magiccolor_jax.lineart.sketch_keras import (
    SketchKeras,
    SketchKerasConfig,
    SketchKerasMethod,
    high_frequencies,
)
from magiccolor_jax.lineart.xdog import xdog
from magiccolor_jax.nn.abstract import abstract

SKETCH_KERAS = abstract(SketchKeras, SketchKerasConfig.nano())
INFORMATIVE = abstract(InformativeDrawings, InformativeDrawingsConfig.nano())


class Pretended:
    """In the place of a network: remembers what it saw, and draws what it is told to."""

    def __init__(self, draw):
        self.draw, self.seen = draw, None

    def __call__(self, pixels):
        self.seen = pixels
        return self.draw(pixels)


def made(kind, side, network=None):
    """A method around a pretended network."""
    method = kind.__new__(kind)
    method._side, method._network = side, network
    return method


@pytest.fixture
def picture():
    pixels = seeded_pictures("drawn", (1, 150, 233, 3))[0]
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def test_anime2sketch(picture):
    """data.py and test.py: PIL's bicubic, (x - 0.5) / 0.5, truncated to 8 bits, bicubic again."""
    network = Pretended(lambda x: np.tanh(x.sum(-1, keepdims=True)))
    found = LineArt(made(Anime2SketchMethod, 64, network))(picture)
    small = np.asarray(Image.fromarray(picture).resize((64, 64), Image.BICUBIC))
    signed = (small.astype(np.float32) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(network.seen, signed[None], atol=1e-6)
    levels = ((network.draw(network.seen)[0, :, :, 0] + 1) / 2 * 255).astype(np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((233, 150), Image.BICUBIC))
    np.testing.assert_array_equal(found, expected)


def test_informative_drawings(picture):
    """ControlNet's annotator: the shorter side to `side`, multiples of 64, cut off at 8 bits."""
    network = Pretended(lambda x: x.mean(-1, keepdims=True))
    method = made(InformativeDrawingsMethod, 128, network)
    found = LineArt(method)(picture)
    assert method.size((150, 233)) == (128, 192) == network.seen.shape[1:3]
    small = cv2.resize(picture, (192, 128), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(network.seen[0], small / 255, atol=1e-6)
    levels = (network.draw(network.seen)[0, :, :, 0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(found, cv2.resize(levels, (233, 150)))


def test_long_pictures_stay_small():
    method = made(InformativeDrawingsMethod, 512)
    assert method.size((24000, 800)) == (2048, 64)
    assert method.size((600, 600)) == (512, 512)


def test_long_pictures_are_shrunk_by_areas():
    """Although their shorter side is shorter than the method's: Lanczos would leave dots."""
    dots = np.zeros((40 * 64, 64, 3), np.uint8)
    dots[::2] = 255
    small = made(InformativeDrawingsMethod, 128).shrink(dots)
    assert small.shape == (512, 64, 3)
    np.testing.assert_array_less(np.abs(small.astype(int) - 127), 30)


def test_sketch_keras(picture):
    """The port's test.py, step by step, on the same blurred 8-bit picture."""
    network = Pretended(lambda x: 1.3 * np.abs(x))
    found = LineArt(made(SketchKerasMethod, 96, network))(picture)
    small = cv2.resize(picture, (96, int(96 / 233 * 150)))
    blurred = cv2.GaussianBlur(small, (0, 0), 3)
    fine = (small.astype(int) - blurred.astype(int)) / 128.0
    square = np.zeros((3, 96, 96))
    square[:, : small.shape[0]] = np.moveaxis(fine / fine.max(), -1, 0)
    np.testing.assert_allclose(network.seen[..., 0], square, atol=1e-6)
    ink = network.draw(network.seen)[..., 0].max(axis=0)
    ink[ink < 0.1] = 0
    levels = np.clip((1 - ink) * 255, 0, 255).astype(np.uint8)[: small.shape[0]]
    expected = cv2.resize(levels, (233, 150), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(found, expected)


def test_sketch_keras_sees_nothing_in_a_plain_picture():
    plain = np.full((32, 40, 3), 0.4, np.float32)
    np.testing.assert_array_equal(high_frequencies(plain), 0)


@pytest.mark.parametrize("turned", [False, True])
def test_the_longer_side_is_whole(turned):
    shape = (40, 7, 3) if turned else (7, 40, 3)
    for side in (96, 509, 512):
        found = made(SketchKerasMethod, side).shrink(np.zeros(shape, np.uint8)).shape
        assert max(found) == side and min(found[:2]) == int(side / 40 * 7)


def test_contrast_goes_around_the_drawing(picture):
    plain = XDoGMethod()
    np.testing.assert_array_equal(LineArt(plain)(picture), xdog(picture))
    evened = clahe(picture.astype(np.float32) / 255, 3.0)
    expected = xdog(np.rint(evened * 255).astype(np.uint8))
    np.testing.assert_array_equal(LineArt(plain, Contrast(picture=3.0))(picture), expected)
    lines = clahe(xdog(picture)[..., None].astype(np.float32) / 255, 1.0)[..., 0]
    found = LineArt(plain, Contrast(lines=1.0))(picture)
    np.testing.assert_array_equal(found, np.rint(lines * 255))


def test_a_network_is_compiled_once_for_a_size():
    network = seeded_network(
        InformativeDrawings, InformativeDrawingsConfig.nano(), maps.INFORMATIVE_DRAWINGS
    )
    method = InformativeDrawingsMethod(network, side=64)
    for shape in ((64, 64, 3), (90, 80, 3), (64, 130, 3), (30, 60, 3)):
        LineArt(method)(np.zeros(shape, np.uint8))
    assert method._network.program._cache_size() == 2


def test_an_extractor_plugs_in_by_name(monkeypatch, picture):
    """Training takes it by that name; without its model it says what there is."""
    with pytest.raises(ValueError, match=r"an extractor \['xdog'\], got 'bright'"):
        Play(lines="bright")
    monkeypatch.setitem(EXTRACTORS, "bright", LineArt(XDoGMethod(), Contrast(picture=2.0)))
    assert Play(lines="bright").lines == "bright"
    assert EXTRACTORS["bright"](picture).shape == picture.shape[:2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Anime2SketchConfig(depth=4), "a depth of at least 5, got 64 and 4"),
        (lambda: SketchKerasMethod(SKETCH_KERAS, side=16), "a multiple of 16, at least 32: got 16"),
        (lambda: InformativeDrawingsMethod(INFORMATIVE, side=63), "at least 64, got 63"),
    ],
)
def test_bad_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
