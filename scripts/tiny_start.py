"""The model folder that the tiny model's trainings start from: sizes, autoencoder, encoder.

    python scripts/tiny_start.py --autoencoder runs/tiny/autoencoder/model --out runs/tiny/start

The reference encoder has random weights, for stages that train it along, or those of its own
training; what the stages train they draw themselves.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from overfit_model import random_network

from magiccolor_jax import tiny
from magiccolor_jax.checkpoint import load_network, read_config, save_network, write_config
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.files import atomic_directory, link_or_copy


@dataclass(frozen=True, kw_only=True)
class Args:
    """Makes the folder."""

    autoencoder: Path = Path("runs/tiny/autoencoder/model")
    """Folder with the trained autoencoder."""
    encoder: Path | None = None
    """Folder with the trained reference encoder; None: random weights."""
    out: Path = Path("runs/tiny/start")
    """Folder to make."""


def main(args: Args) -> None:
    """Writes config.json, vae.safetensors and dinov2.safetensors.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError, ValueError: a network is not there, or of other sizes.
    """
    autoencoder = read_config(args.autoencoder).networks["vae"]
    with atomic_directory(args.out) as new:
        link_or_copy(args.autoencoder / "vae.safetensors", new / "vae.safetensors")
        if args.encoder is None:
            encoder = random_network(DINOv2, tiny.ENCODER, "dinov2")
        else:  # of these sizes, or it is refused
            encoder = load_network(args.encoder, "dinov2", tiny.ENCODER)
        save_network(new / "dinov2.safetensors", encoder)
        write_config(new, tiny.model(autoencoder))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
