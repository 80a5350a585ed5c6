"""What comes with the package is whole, small enough, and colours its own cases."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magiccolor_jax import cli
from magiccolor_jax.checkpoint import parameter_shapes, read_config
from magiccolor_jax.data.art import NEVER_TRAINED
from magiccolor_jax.data.cases import find_cases
from magiccolor_jax.embedded import ASSETS, CASES, DEFAULT, MODELS, case_folder, model_folder
from magiccolor_jax.tensorfile import TensorFile

MODEL = MODELS / DEFAULT


@pytest.mark.parametrize(
    ("find", "folder", "name"), [(model_folder, MODELS, "tiny"), (case_folder, CASES, "concert_36")]
)
def test_a_name_leads_to_what_is_embedded(tmp_path: Path, monkeypatch, find, folder, name):
    monkeypatch.chdir(tmp_path)
    assert find(name) == find(Path(name)) == folder / name
    for other in (f"elsewhere/{name}", str(tmp_path / name), "unknown", ".", ".."):
        assert find(other) == Path(other)
    (tmp_path / name).mkdir()
    assert find(name) == Path(name), "what the user has goes first"


def test_the_model_is_whole_and_small():
    config, size = read_config(MODEL), 0
    for name, network in config.networks.items():
        specs = TensorFile(MODEL / f"{name}.safetensors").specs
        assert {key: spec.shape for key, spec in specs.items()} == parameter_shapes(network)
        assert {spec.dtype for spec in specs.values()} == {np.dtype(np.float16)}
        size += (MODEL / f"{name}.safetensors").stat().st_size
    assert size < 20e6
    assert max(file.stat().st_size for file in ASSETS.rglob("*")) < 20e6


def test_whoever_drew_what_it_saw_is_named():
    text = (MODEL / "ATTRIBUTION.md").read_text()
    assert "Open Peeps" in text and "MIT licence" in text
    assert not any(source in text for source in NEVER_TRAINED)


def test_every_case_has_its_licence():
    cases = find_cases([CASES])
    assert len(cases) == 4 and all((case / "LICENSE.txt").is_file() for case in cases)


@pytest.mark.slow
@pytest.mark.torch
def test_it_goes_to_pytorch_and_comes_back(tmp_path: Path):
    """With the same weights and settings, and so with the same pictures."""
    pytest.importorskip("diffusers")
    release, back = str(tmp_path / "release"), str(tmp_path / "model")
    assert cli.run(["convert", "tiny", release]) == 0
    assert cli.run(["convert", release, back, "--verify"]) == 0
    config = read_config(MODEL)
    assert read_config(tmp_path / "model") == config
    for name in config.networks:
        ours, theirs = (
            TensorFile(folder / f"{name}.safetensors") for folder in (MODEL, tmp_path / "model")
        )
        assert ours.specs == theirs.specs
        for key in ours.specs:
            np.testing.assert_array_equal(ours.read(key), theirs.read(key), err_msg=key)


@pytest.mark.slow
def test_it_colours_a_case_by_name(tmp_path: Path):
    words = ["colorize", "dice_20", "--out", str(tmp_path / "out"), "--steps", "2"]
    assert cli.run([*words, "--compilation-cache", str(tmp_path / "cache")]) == 0
    with (
        Image.open(tmp_path / "out/dice_20.png") as made,
        Image.open(CASES / "dice_20/sketch.png") as page,
    ):
        assert made.size == page.size
        picture = np.asarray(made.convert("RGB"))
    assert (picture.max(-1) - picture.min(-1) > 60).mean() > 0.02
