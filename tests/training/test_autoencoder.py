"""The autoencoder's training: resumed exactly, learning, and written as a model folder."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.art_library import write_library
from rich.console import Console

from magiccolor_jax import cli
from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.tensorfile import TensorFile
from magiccolor_jax.training import crops as crops_module
from magiccolor_jax.training import pretraining as training
from magiccolor_jax.training.autoencoder import (
    AutoencoderConfig,
    AutoencoderTraining,
    objective,
)
from magiccolor_jax.training.config import SaveConfig
from magiccolor_jax.training.pretraining import signed

QUIET = Console(quiet=True)

NETWORK = VAEConfig.nano(scaling_factor=1.0)


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    return f"art:{write_library(tmp_path_factory.mktemp('art') / 'art.npz')}"


def config(art, out, **changes):
    fields = {"crop": 16, "page": 48, "batch": 2, "steps": 6, "every": 1, "preview_every": 3}
    fields["save"] = SaveConfig(every=3)
    fields |= {"network": NETWORK} | changes
    return AutoencoderConfig(out=out, sources=(art,), **fields)


def crops_of(made):
    """What a training sees."""
    training = AutoencoderTraining(made, QUIET)
    return training.batches(training.source)


def measured(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return [line["loss"] for line in measured(run) if "loss" in line]


@pytest.fixture(scope="module")
def run(art, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert AutoencoderTraining(config(art, out), QUIET).run() == 0
    return out


def test_a_run_leaves_a_model(run):
    folder = run / "model"
    (sizes,) = read_config(folder).networks.values()
    network = load_network(folder, "vae", sizes)
    assert {path.name for path in (run / "previews").iterdir()} == {"0000003.png", "0000006.png"}
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    spread = float(jnp.std(network.encode(jnp.asarray(pixels)).mean))
    assert 0.1 < spread < 10 and sizes.scaling_factor != 1.0


def test_latents_of_what_it_sees_have_deviation_one(art, run):
    sizes = read_config(run / "model").networks["vae"]
    network = load_network(run / "model", "vae", sizes)
    crops = crops_of(config(art, run))
    pixels = signed(np.concatenate([crops(step) for step in range(6, 14)]))
    assert float(jnp.std(network.encode(pixels).mean)) == pytest.approx(1, rel=1e-4)


def test_stopped_and_gone_on_it_is_the_same(art, run, tmp_path, monkeypatch):
    out, look = tmp_path / "stopped", AutoencoderTraining._look

    class Stopped(training.Stop):
        def __init__(self):
            super().__init__()
            stops.append(self)

    def stopping(self, reporter, finished, *rest):
        look(self, reporter, finished, *rest)
        stops[-1].asked = finished == 3

    stops = []
    monkeypatch.setattr(training, "Stop", Stopped)
    monkeypatch.setattr(AutoencoderTraining, "_look", stopping)
    assert AutoencoderTraining(config(art, out), QUIET).run() == 75
    assert len(losses(out)) == 3
    assert AutoencoderTraining(config(art, out), QUIET).run() == 0
    assert losses(out) == losses(run)


def test_what_is_held_out_is_measured(art, tmp_path):
    made = config(art, tmp_path / "run", steps=3, validation=(art,))
    assert AutoencoderTraining(made, QUIET).run() == 0
    (found,) = (line for line in measured(tmp_path / "run") if "validation/psnr" in line)
    assert found["step"] == 3 and found["validation/psnr"] > 0


def test_other_data_are_refused(art, run):
    with pytest.raises(ValueError, match="goes on with the data that it began with"):
        AutoencoderTraining(config(art, run, seed=1), QUIET).run()


def test_crops_are_functions_of_the_step(art, tmp_path):
    crops = crops_of(config(art, tmp_path, batch=5))
    np.testing.assert_array_equal(crops(5), crops(5))
    shown = np.concatenate([crops(step) for step in range(8)])
    assert shown.shape == (40, 16, 16, 3)
    assert sum(crop.std() > 5 for crop in shown) > 10 and np.any(shown[0] != shown[5])
    large = crops_of(config(art, tmp_path, crop=96, batch=1))
    assert large(0).shape == (1, 96, 96, 3) and (large(0)[0, 0] == 255).all()


def test_a_few_crops_share_a_scene(art, tmp_path, monkeypatch):
    source = AutoencoderTraining(config(art, tmp_path), QUIET).source
    read, composed = type(source).__getitem__, []
    monkeypatch.setattr(
        type(source), "__getitem__", lambda self, i: composed.append(i) or read(self, i)
    )
    assert len(crops_of(config(art, tmp_path, batch=9))(0)) == 9
    assert len(composed) == 3


def test_every_term_counts(art, tmp_path):
    started = AutoencoderTraining(config(art, tmp_path), QUIET)
    model = started.layout.build(started.first)
    pixels = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    key = jnp.zeros(2, jnp.uint32)

    def loss(**changes):
        return float(objective(config(art, tmp_path, **changes), model, pixels, key)[0])

    none = {"kl": 0.0, "slope": 0.0, "coarse": 0.0}
    terms = [loss(**(none | {name: 1.0})) - loss(**none) for name in none]
    assert min(terms) > 1e-3
    assert loss(kl=1.0, slope=1.0, coarse=1.0) == pytest.approx(loss(**none) + sum(terms), 1e-4)


def test_the_command(art, tmp_path, capsys):
    words = ["train", "tiny/autoencoder", "--out", tmp_path / "run", "--sources", art]
    words += ["--steps", 2, "--batch", 1, "--crop", 16, "--page", 48, "--every", 1]
    words += ["--compilation-cache", tmp_path / "cache"]
    assert cli.run(list(map(str, words))) == 0
    assert (tmp_path / "run/model/vae.safetensors").is_file()
    assert "step 2" in capsys.readouterr().err
    assert cli.run(["train", "--help"]) == 0
    assert "tiny/autoencoder" in capsys.readouterr().out
    with pytest.raises(ValueError, match="crop must be a multiple of 8"):
        config(art, tmp_path, crop=20)


@pytest.mark.slow
def test_going_on_with_more_steps_makes_another_model(art, tmp_path):
    out = tmp_path / "run"
    made = []
    for steps in (2, 4):
        assert AutoencoderTraining(config(art, out, steps=steps), QUIET).run() == 0
        made.append((out / "model/vae.safetensors").read_bytes())
    assert made[0] != made[1]


def test_bad_settings(art, tmp_path):
    for name in ("batch", "steps", "every", "threads", "crop"):
        with pytest.raises(ValueError, match=f"expected at least 1, got .*{name}"):
            config(art, tmp_path, **{name: 0})
    assert config(art, tmp_path, preview_every=0).preview_every == 0


def test_what_cannot_be_read_is_passed_over(art, tmp_path, monkeypatch):
    source = AutoencoderTraining(config(art, tmp_path), QUIET).source
    read, tried = type(source).__getitem__, []

    def failing(self, index):
        tried.append(index)
        if len(tried) < 8:
            raise CaseError(tmp_path, "a", "b", "c", "d")
        return read(self, index)

    monkeypatch.setattr(type(source), "__getitem__", failing)
    crops = crops_of(config(art, tmp_path))
    assert crops(0).shape == (2, 16, 16, 3) and len(set(tried)) == 8
    tried.clear()
    monkeypatch.setattr(crops_module, "ATTEMPTS", 2)
    with pytest.raises(CaseError):
        crops(0)


def test_the_decoder_alone_goes_on(art, run, tmp_path):
    out = tmp_path / "decoder"
    made = config(art, out, init=run / "model", decoder_only=True, noise=0.1, steps=2)
    assert AutoencoderTraining(made, QUIET).run() == 0
    assert read_config(out / "model") == read_config(run / "model")
    before, after = (TensorFile(folder / "model/vae.safetensors") for folder in (run, out))
    moved = {key for key in after.specs if not np.array_equal(before.read(key), after.read(key))}
    assert moved == {key for key in after.specs if key.startswith(("decoder/", "post_quant"))}


def test_going_on_wants_the_same_sizes(art, run, tmp_path):
    other = dataclasses.replace(NETWORK, latent_channels=5)
    wrong = config(art, tmp_path / "out", init=run / "model", network=other)
    with pytest.raises(ValueError, match="gone on from at its own sizes"):
        AutoencoderTraining(wrong, QUIET)
    with pytest.raises(ValueError, match="decoder_only needs init"):
        config(art, tmp_path, decoder_only=True)


@pytest.mark.slow
def test_it_learns(art, tmp_path):
    made = config(art, tmp_path / "run", steps=100, batch=8, every=25, preview_every=0)
    assert AutoencoderTraining(made, QUIET).run() == 0
    found = [line["psnr"] for line in measured(tmp_path / "run")]
    assert found == sorted(found) and found[-1] > found[0] + 1
