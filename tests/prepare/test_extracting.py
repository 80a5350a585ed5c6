"""`magiccolor lineart` from the command line: lines, sheets, networks, what is kept, errors."""

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from oracles.case_folders import save, save_both
from PIL import Image
from seeded_network import seeded_network

from converters import maps
from converters.weightmap import wanted
from magiccolor_jax import cli
from magiccolor_jax.checkpoint import ModelConfig, parameter_shapes, save_network, write_config
from magiccolor_jax.data.pictures import read_picture, read_sketch
from magiccolor_jax.data.sketches import prepare_sketch
from magiccolor_jax.data.transforms import fit_page
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.lineart import EXTRACTORS
from magiccolor_jax.lineart.anime2sketch import Anime2Sketch, Anime2SketchConfig
from magiccolor_jax.lineart.informative_drawings import (
    InformativeDrawings,
    InformativeDrawingsConfig,
)
from magiccolor_jax.lineart.networks import NETWORKS
from magiccolor_jax.lineart.sketch_keras import SketchKeras, SketchKerasConfig
from magiccolor_jax.lineart.xdog import xdog
from magiccolor_jax.prepare import extracting
from magiccolor_jax.prepare.extracting import TITLE_HEIGHT
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.tensorfile import TensorFile
from magiccolor_jax.types import Sizes

NANO = {
    "anime2sketch": (Anime2Sketch, Anime2SketchConfig.nano(), maps.ANIME2SKETCH),
    "sketch_keras": (SketchKeras, SketchKerasConfig.nano(), maps.SKETCH_KERAS),
    "informative_drawings": (
        InformativeDrawings,
        InformativeDrawingsConfig.nano(),
        maps.INFORMATIVE_DRAWINGS,
    ),
}


SHAPE = (270, 420)
"""Height and width of the pictures."""


def drawn():
    """A disc and a square on a coloured ground."""
    picture = np.full((*SHAPE, 3), (200, 220, 250), np.uint8)
    cv2.circle(picture, (135, 135), 84, (200, 60, 40), -1)
    cv2.rectangle(picture, (270, 60), (375, 210), (40, 80, 160), -1)
    return picture


@pytest.fixture
def pictures(tmp_path):
    return save_both(tmp_path / "in", drawn())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with all three networks."""
    folder = tmp_path_factory.mktemp("extractors")
    for kind, network in NANO.items():
        save_network(folder / f"{kind}.safetensors", seeded_network(*network))
    write_config(folder, ModelConfig(networks={kind: cfg for kind, (_, cfg, _) in NANO.items()}))
    return folder


def draw(*words):
    return cli.run(["lineart", *map(str, words)])


def read(path):
    return np.asarray(Image.open(path))


def test_lines_without_a_model(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert draw(pictures, "--out", out) == 0
    np.testing.assert_array_equal(read(out / "lines/one.png"), xdog(drawn()))
    np.testing.assert_array_equal(read(out / "lines/deep/two.png"), xdog(drawn()[:, ::-1].copy()))
    said = " ".join(capsys.readouterr().err.split())
    assert "2 pictures by xdog" in said and "one: " in said
    assert "pictures/s, 0 kept, 0 failed" in said and "2 drawn, " in said


def test_a_sheet_shows_what_a_model_sees(pictures, tmp_path):
    """By the normalisation that training and colouring share."""
    assert draw(pictures / "one.png", "--out", tmp_path) == 0
    fit = fit_page(SHAPE, Recipe.paper(), Sizes())
    height, width = fit.placed.height, fit.placed.width
    shown = read(tmp_path / "sheets/one.png")
    assert shown.shape == (TITLE_HEIGHT + height, 3 * (width + 1), 3)
    sketch = read_sketch(tmp_path / "lines/one.png")
    rng = np.random.default_rng(0)
    pixels, inverted = prepare_sketch(sketch, fit, Recipe.paper(), None, rng)
    seen = (pixels[fit.placed.slices] + 1) * 127.5
    np.testing.assert_allclose(shown[TITLE_HEIGHT:, -width - 1 : -1], seen, atol=0.01)
    assert not inverted and np.ptp(seen) > 200


def test_what_is_drawn_is_not_drawn_again(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert draw(pictures, "--out", out) == 0
    before = (out / "lines/one.png").stat().st_mtime_ns
    (out / "sheets/deep/two.png").unlink()
    (pictures / "three.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert draw(pictures, "--out", out) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "failed three" in said and "1 drawn" in said and "1 kept, 1 failed" in said
    assert (out / "lines/one.png").stat().st_mtime_ns == before
    assert (out / "sheets/deep/two.png").is_file()
    assert draw(pictures / "one.png", "--out", out, "--clahe") == 0
    assert (out / "lines/one.png").stat().st_mtime_ns != before


def test_others_files_are_kept_and_its_own_are_no_input(pictures, capsys):
    out = pictures / "drawn"
    save(out / "lines/one.png", drawn())
    assert draw(pictures, "--out", out) == 1
    assert "none of ours" in capsys.readouterr().err
    np.testing.assert_array_equal(read(out / "lines/one.png"), drawn())
    (out / "lines/one.png").unlink()
    assert draw(pictures, "--out", out) == 0
    assert "2 pictures" in capsys.readouterr().err


def test_contrast_is_evened_out_before_and_after(tmp_path):
    """A dark picture is ink all over without that."""
    save(tmp_path / "dark.png", drawn() // 12)
    ways = {"off": (), "picture": ("--clahe", "--clahe-clip", 40), "lines": ("--clahe-lines",)}
    found = {}
    for name, words in ways.items():
        assert draw(tmp_path / "dark.png", "--out", tmp_path / name, *words) == 0
        found[name] = read(tmp_path / name / "lines/dark.png")
    assert (found["off"] < 128).mean() > 0.9 and (found["picture"] < 128).mean() < 0.5
    assert np.abs(found["lines"].astype(int) - found["off"]).max() > 5


@pytest.mark.parametrize("method", NETWORKS)
def test_networks_draw(pictures, model, tmp_path, capsys, method):
    out = tmp_path / "out"
    words = ("--method", method, "--model", model, "--size", 64, "--clahe-lines")
    assert draw(pictures, "--out", out, *words) == 0
    one, two = read(out / "lines/one.png"), read(out / "lines/deep/two.png")
    assert one.shape == two.shape == SHAPE and one.dtype == np.uint8
    assert np.ptp(one) > 20
    said = " ".join(capsys.readouterr().err.split())
    assert f"by {method} on cpu" in said and said.count("compiling for") == 1
    assert draw(pictures, "--out", out, *words) == 0
    assert "0 drawn, 2 kept" in " ".join(capsys.readouterr().err.split())


def save_as_pytorch(path, ours, config, weight_map):
    torch = pytest.importorskip("torch")
    file, state = TensorFile(ours), {}
    for item in wanted(weight_map, parameter_shapes(config)):
        array = weight_map.to_torch(item.path, file.read(item.path))
        state[item.keys[0]] = torch.from_numpy(array.copy())
    torch.save(state, path)


@pytest.mark.torch
def test_a_file_of_pytorch_is_converted_once(pictures, model, tmp_path, capsys):
    save_as_pytorch(
        tmp_path / "sk_model.pth",
        model / "informative_drawings.safetensors",
        InformativeDrawingsConfig.nano(),
        maps.INFORMATIVE_DRAWINGS,
    )
    words = ("--size", 64, "--converted", tmp_path / "kept")
    for name, path in (("file", tmp_path / "sk_model.pth"), ("folder", model)):
        given = ("--model", path, "--method", "informative-drawings")
        assert draw(pictures / "one.png", "--out", tmp_path / name, *given, *words) == 0
    np.testing.assert_array_equal(
        read(tmp_path / "file/lines/one.png"), read(tmp_path / "folder/lines/one.png")
    )
    (kept,) = (tmp_path / "kept").iterdir()
    before = (kept / "config.json").stat().st_mtime_ns
    given = ("--model", tmp_path / "sk_model.pth")
    assert draw(pictures / "one.png", "--out", tmp_path / "file", *given, *words) == 0
    assert (kept / "config.json").stat().st_mtime_ns == before
    assert "0 drawn, 1 kept" in " ".join(capsys.readouterr().err.split())


@pytest.mark.torch
def test_a_file_of_another_network_is_not_converted(pictures, tmp_path, capsys):
    network = seeded_network(VGG19, VGG19Config.nano(), maps.VGG19)
    save_network(tmp_path / "vgg.safetensors", network)
    save_as_pytorch(
        tmp_path / "vgg.pth", tmp_path / "vgg.safetensors", VGG19Config.nano(), maps.VGG19
    )
    words = ("--model", tmp_path / "vgg.pth", "--converted", tmp_path / "kept")
    assert draw(pictures, "--out", tmp_path / "out", *words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "expected one of the networks anime2sketch, sketch_keras" in said and "vgg19" in said
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("below", [".", "deeper/out"])
def test_an_output_that_cannot_be_written_is_told_before_drawing(pictures, capsys, below):
    (pictures / "out").write_bytes(b"a file")
    assert draw(pictures, "--out", pictures / "out" / below) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "expected a folder, or a path where one can be made" in said and "failed" not in said


def test_the_rate_is_that_of_whole_pictures(pictures, tmp_path, capsys, monkeypatch):
    """Reading and writing take most of XDoG's time; what failed is no picture."""
    clock = itertools.count()
    now = SimpleNamespace(monotonic=lambda: float(next(clock)))
    monkeypatch.setattr(extracting, "time", now)
    monkeypatch.setattr(
        extracting, "read_picture", lambda path: (next(clock), read_picture(path))[1]
    )
    assert draw(pictures, "--out", tmp_path / "out") == 0
    assert "2 drawn, 0.50 pictures/s" in " ".join(capsys.readouterr().err.split())
    (pictures / "deep/two.png").unlink()
    (pictures / "one.png").write_bytes(b"no picture")
    assert draw(pictures, "--out", tmp_path / "out") == 1
    assert "0 drawn, 0 kept, 1 failed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.png",), "expected a picture or a folder"),
        (("{in}", "--method", "anime2sketch"), "expected --model netG.pth, which is published at"),
        (("{in}", "--size", "64"), "--model and --size go with a network, and xdog is none"),
        (("{in}", "--method", "xdog", "--model", "{model}"), "and xdog is none"),
        (("{in}", "--model", "{model}"), "expected one network that draws lines, or --method, got"),
        (("{in}", "--model", "{in}"), "config.json"),
        (("{in}", "--model", "{in}/one.png"), "expected a file of torch.save"),
        (("{in}", "--model", "{model}", "--method", "anime2sketch", "--size", "40"), "of 32"),
        (("{in}", "--clahe", "--clahe-clip", "0"), "expected a number above 0, got 0"),
    ],
)
def test_errors(pictures, model, tmp_path, capsys, words, message):
    given = [word.format(**{"in": pictures, "model": model}) for word in words]
    assert draw(*given, "--out", tmp_path / "out") == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_another_folders_network_is_named(pictures, tmp_path, model, capsys):
    kind, (_, config, _) = next(iter(NANO.items()))
    write_config(tmp_path / "one", ModelConfig(networks={kind: config}))
    words = ("--model", tmp_path / "one", "--method", "sketch-keras")
    assert draw(pictures, "--out", tmp_path / "out", *words) == 1
    assert "expected the network sketch-keras, got anime2sketch" in capsys.readouterr().err


def test_small_pictures(tmp_path, capsys):
    save(tmp_path / "in/a.png", drawn()[:1, :3].copy())
    assert draw(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert read(tmp_path / "out/lines/a.png").shape == (1, 3)
    assert draw(tmp_path / "in", "--out", tmp_path / "clahe", "--clahe") == 1
    assert "expected a longer side, got 1 pixels" in " ".join(capsys.readouterr().err.split())


def test_the_registry_has_what_needs_no_model():
    assert set(EXTRACTORS) == {"xdog"} and "xdog" not in NETWORKS
