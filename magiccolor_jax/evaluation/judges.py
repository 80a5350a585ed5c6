"""Pretrained networks that judge pictures: where they come from, and what they say of batches."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from magiccolor_jax.checkpoint import ModelConfig, load_network, read_config
from magiccolor_jax.data.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Picture,
    normalise,
    stretch,
)
from magiccolor_jax.types import Sizes


class Download(NamedTuple):
    """An official file."""

    pattern: str
    """Of its name."""
    url: str


TORCHVISION = "https://download.pytorch.org/models"
LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"

JUDGES = {
    "lpips_alex": (
        Download("alexnet-*.pth", f"{TORCHVISION}/alexnet-owt-7be5be79.pth"),
        Download("alex.pth", f"{LPIPS}/alex.pth"),
    ),
    "lpips_vgg": (
        Download("vgg16-*.pth", f"{TORCHVISION}/vgg16-397923af.pth"),
        Download("vgg.pth", f"{LPIPS}/vgg.pth"),
    ),
    "inception": (
        Download(
            "pt_inception-*.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
        ),
    ),
}
"""Stem in the JAX folder -> the files that `magiccolor convert` makes it from, all in one folder.
"""

ENCODERS = ("dinov2", "clip_vision")
"""Stems of networks that a model folder has."""


class Judges(NamedTuple):
    """The networks that a protocol asks for."""

    networks: dict[str, nnx.Module]
    """By stem."""
    sizes: dict[str, Sizes]
    """Stem of an encoder -> of the pictures that it takes."""
    folders: tuple[Path, ...]
    """Where each network was found, in the order of `networks`."""


class Found(NamedTuple):
    """Where a network is."""

    folder: Path
    config: ModelConfig


def find_judges(folders: Iterable[Path], wanted: Sequence[str]) -> dict[str, Found]:
    """Stem -> the first folder that has it; reads no weights.

    Args:
        folders: JAX folders, of metrics or of models.
        wanted: stems.

    Raises:
        FileNotFoundError: networks are missing; all are named, with where to get them.
        ValueError: a folder is none of ours.
    """
    opened = [Found(folder, read_config(folder)) for folder in folders]
    places = {
        stem: next((each for each in opened if stem in each.config.networks), None)
        for stem in wanted
    }
    if missing := [f"  {stem}: {_source(stem)}" for stem, place in places.items() if not place]:
        where = ", ".join(str(each.folder) for each in opened) or "no folder (--networks)"
        raise FileNotFoundError(
            f"the protocol takes networks that are not in {where}:\n" + "\n".join(missing)
        )
    return {stem: place for stem, place in places.items() if place}


def load_judges(folders: Iterable[Path], wanted: Sequence[str], *, sharding: Any = None) -> Judges:
    """Loads what a protocol asks for.

    Args:
        sharding: where parameters go; default the first device.

    Raises:
        FileNotFoundError, ValueError: as `find_judges`, or weights that do not fit their config.
    """
    places = find_judges(folders, wanted)
    networks = {
        stem: load_network(folder, stem, config.networks[stem], sharding=sharding)
        for stem, (folder, config) in places.items()
    }
    sizes = {stem: places[stem].config.sizes for stem in ENCODERS if stem in places}
    return Judges(networks, sizes, tuple(place.folder for place in places.values()))


def _source(stem: str) -> str:
    if stem in ENCODERS:
        return "is in a whole model's folder (magiccolor convert RELEASE MODEL)"
    urls = " and ".join(file.url for file in JUDGES[stem])
    return f"download {urls} into one folder, then magiccolor convert FOLDER NETWORKS"


def encoder_pixels(stem: str, picture: Picture, sizes: Sizes) -> Float[np.ndarray, "P P 3"]:
    """A picture as an encoder takes it: stretched to a square, normalised.

    Args:
        stem: one of `ENCODERS`.
    """
    if stem == "dinov2":
        return normalise(stretch(picture, sizes.reference), IMAGENET_MEAN, IMAGENET_STD)
    return normalise(stretch(picture, sizes.clip), CLIP_MEAN, CLIP_STD)


@nnx.jit
def embed(network: nnx.Module, pixels: Float[Array, "B P P 3"]) -> Float[Array, "B D"]:
    """DINOv2's class tokens, or CLIP's image embeddings, of length 1."""
    with jax.default_matmul_precision("highest"):  # a yardstick must not change with the device
        found = network(pixels)  # pyright: ignore[reportCallIssue]
    vectors = (found if isinstance(found, jax.Array) else found.cls).astype(jnp.float32)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
