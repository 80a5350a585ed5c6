"""The embedded default's sizes, and that its trainings can begin."""

from math import prod

import pytest
from overfit_model import random_network
from tiny_start import Args, main

from magiccolor_jax import cli, tiny
from magiccolor_jax.checkpoint import ModelConfig, parameter_shapes, save_network, write_config
from magiccolor_jax.encoders.vae import VAE


def test_it_is_small():
    networks = tiny.model(tiny.AUTOENCODER).networks
    counts = {
        name: sum(prod(shape) for shape in parameter_shapes(cfg).values())
        for name, cfg in networks.items()
    }
    assert sum(counts.values()) < 10e6, counts
    assert "clip_vision" not in counts and tiny.AUTOENCODER.reduction == 8


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    network = random_network(VAE, tiny.AUTOENCODER, "vae")
    (folder / "model").mkdir()
    save_network(folder / "model/vae.safetensors", network)
    write_config(folder / "model", ModelConfig(networks={"vae": tiny.AUTOENCODER}))
    main(Args(autoencoder=folder / "model", out=folder / "start"))
    return folder / "start"


def test_its_first_stage_can_begin(start, tmp_path, capsys):
    words = ["train", "tiny/stage1", "--init", start, "--out", tmp_path / "run", "--dry-run"]
    assert cli.run(list(map(str, words))) == 0
    assert "sketch_guider" in capsys.readouterr().out and not (tmp_path / "run").exists()
