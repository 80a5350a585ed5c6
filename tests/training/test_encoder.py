"""The reference encoder's training: which patches match, the loss, the model folder."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.art_library import write_library
from rich.console import Console

from magiccolor_jax import cli
from magiccolor_jax.checkpoint import load_network, read_config
from magiccolor_jax.data.scenes import View
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.encoders.dinov2 import DINOv2, DINOv2Features
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.training.correspondences import Correspondences, Pairs
from magiccolor_jax.training.encoder import EncoderConfig, EncoderTraining, contrast
from magiccolor_jax.types import Sizes

QUIET = Console(quiet=True)

ENCODER = DINOv2Config.nano(registers=0, image_size=112)

SIZES = Sizes(reference=112, patch=14)

STILL = SelfPlay.off()


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    return f"art:{write_library(tmp_path_factory.mktemp('art') / 'art.npz')}"


def config(art, out, **changes):
    fields = {"batch": 3, "steps": 2, "every": 1, "preview_every": 2, "encoder": ENCODER} | changes
    return EncoderConfig(out=out, sources=(art,), **fields)


@pytest.fixture(scope="module")
def training(art, tmp_path_factory):
    return EncoderTraining(config(art, tmp_path_factory.mktemp("run")), QUIET)


def make(views: SelfPlay) -> Correspondences:
    return Correspondences(None, 0, 1, SIZES, views)  # type: ignore[arg-type]


def of_coordinates(views: SelfPlay, seed: int):
    """A view of a drawing whose colours are its coordinates, and where its patches are."""
    y, x = np.indices((160, 100))
    picture = np.dstack([255 * y / 159, 255 * x / 159, np.full_like(x, 90)]).astype(np.uint8)
    mask = np.where((y - 80) ** 2 / 6400 + (x - 50) ** 2 / 2500 < 1, 255, 0).astype(np.uint8)
    return make(views)._view(View(picture, mask), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(6))
def test_places_are_where_the_colours_come_from(seed):
    views = SelfPlay(jitter=0.0, occlude=0.5, shuffle=0.0, warp=1.0, rotate=1.0, flip=0.5, crop=0.5)
    pixels, places = of_coordinates(views, seed)
    unit = pixels[..., :2] * np.array([0.229, 0.224]) + np.array([0.485, 0.456])
    known = np.isfinite(places).all(-1)
    tiles = pixels.reshape(8, 14, 8, 14, 3)
    blue = tiles[..., 2] * 0.225 + 0.406  # 90 / 255 in the drawing
    inner = known & (np.abs(blue - 90 / 255) < 0.01).all(axis=(1, 3))
    assert inner.sum() >= 4 and known.sum() < 64
    means = unit.reshape(8, 14, 8, 14, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(places[inner], means[inner], atol=0.02)


def test_what_shows_several_parts_has_no_place():
    _, whole = of_coordinates(STILL, 0)
    _, pieces = of_coordinates(SelfPlay(**(vars(STILL) | {"shuffle": 1.0, "patches": (8, 8)})), 0)
    assert np.isfinite(pieces).sum() < 0.7 * np.isfinite(whole).sum()


def test_steps_are_functions_of_their_number(art):
    pairs = Correspondences(open_source(art), 0, 5, SIZES, SelfPlay())
    for one, other in zip(pairs(3), pairs(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert pairs(3).pixels.shape == (2, 5, 112, 112, 3)
    assert pairs(3).places.shape == (2, 5, 8, 8, 2)
    assert np.any(pairs(3).pixels != pairs(4).pixels)


def test_contrast_is_cross_entropy():
    likeness = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    positive = np.zeros((4, 5), bool)
    positive[0, 1] = positive[2, 3] = True
    known = np.array([True, True, False, True, True])
    shares = np.exp(likeness) / np.exp(likeness[:, known]).sum(1, keepdims=True)
    expected = -(np.log(shares[0, 1]) + np.log(shares[2, 3])) / 2
    found = contrast(*map(jnp.asarray, (likeness, positive, known)))
    assert float(found) == pytest.approx(expected, rel=1e-5)


class Oracle(DINOv2):
    """Features that say where a patch comes from, and whose it is."""

    def __init__(self, places):
        count, grid = places.shape[1:3]
        where = np.where(np.isfinite(places), places, 0).reshape(2 * count, grid, grid, 2)
        angle = 3 * where
        owner = np.tile(np.eye(count), (2, 1))[:, None, None].repeat(grid, 1).repeat(grid, 2)
        found = np.concatenate([np.cos(angle), np.sin(angle), 2 * owner], -1).astype(np.float32)
        self.found = found

    def __call__(self, pixels):
        return DINOv2Features(jnp.asarray(self.found[:, 0, 0, 4:]), jnp.asarray(self.found))


def test_right_features_lose_little_and_hit(art, training):
    batch = Correspondences(open_source(art), 0, 4, SIZES, SelfPlay(shuffle=0.0))(0)
    key = jax.random.key(0)
    loss, found = training.objective(Oracle(batch.places), batch, key)
    assert found["accuracy"] > 0.9 and found["near"] > 0.99 and found["whole"] < 1e-3
    swapped = Pairs(batch.pixels[::-1].copy(), batch.places[::-1].copy())
    again, _ = training.objective(Oracle(swapped.places), swapped, key)
    assert float(again) == pytest.approx(float(loss), rel=1e-5), "both directions count"
    other = np.stack([batch.places[0], batch.places[1][..., ::-1]])
    worse, missed = training.objective(Oracle(other), batch, key)
    assert worse > loss + 0.1 and missed["accuracy"] < found["accuracy"] - 0.2


def test_a_run_leaves_an_encoder(art, tmp_path):
    out = tmp_path / "run"
    words = ["train", "tiny/encoder", "--out", out, "--sources", art, "--batch", 2, "--steps", 2]
    words += ["--every", 1, "--preview-every", 2, "--compilation-cache", tmp_path / "cache"]
    words += ["--encoder.hidden-size", 16, "--encoder.num-hidden-layers", 1]
    words += ["--validation", art]
    assert cli.run(list(map(str, words))) == 0
    (sizes,) = read_config(out / "model").networks.values()
    network = load_network(out / "model", "dinov2", sizes)
    assert network(jnp.zeros((1, 112, 112, 3))).patches.shape == (1, 8, 8, 16)
    assert (out / "previews/0000002.png").is_file()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["validation/accuracy"] <= lines[-1]["validation/near"] <= 1
