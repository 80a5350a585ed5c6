"""Makes the embedded default of a training: weights in 16 bits, settings, and who drew its pages.

    magiccolor convert runs/tiny/whole runs/tiny/model
    python scripts/ship_tiny.py --model runs/tiny/model --art ART.npz --steps 8 --guidance 1.5

Its model card, README.md beside the weights, is written by hand.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from art_attribution import attribution
from jaxtyping import Float16

from magiccolor_jax.checkpoint import SamplingDefaults, read_config, write_config
from magiccolor_jax.data.art import read_art, split_of
from magiccolor_jax.embedded import DEFAULT, MODELS
from magiccolor_jax.files import atomic_directory
from magiccolor_jax.tensorfile import TensorFile, TensorFileWriter, TensorSpec

MOST_BYTES, MOST_PARAMETERS = 20_000_000, 10_000_000
"""Of everything that ships."""

HALF = np.dtype(np.float16)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which model, and how it is sampled where nothing else is asked for."""

    model: Path
    """Model folder that `magiccolor convert` made of the run."""
    art: Path
    """Library of drawings that it was trained on."""
    steps: int
    """Denoising steps that suit it."""
    guidance: float
    """Guidance scale that suits it."""
    sampler: str = "ddim"
    """Sampler that suits it."""
    out: Path = MODELS / DEFAULT
    """Folder to make."""


def main(args: Args) -> None:
    """Writes the folder, whole or not at all.

    Raises:
        CaseError: the library has drawings whose makers are not known.
        FileExistsError: the folder exists.
        FileNotFoundError, ValueError: the model is not whole, too large, or does not fit 16 bits.
    """
    config = read_config(args.model)
    files = {name: TensorFile(args.model / f"{name}.safetensors") for name in config.networks}
    parameters = sum(_size(spec) for file in files.values() for spec in file.specs.values())
    if parameters > MOST_PARAMETERS or HALF.itemsize * parameters > MOST_BYTES:
        raise ValueError(
            f"{args.model}: what ships has at most {MOST_PARAMETERS} parameters, in "
            f"{MOST_BYTES} bytes: got {parameters}; make a network of magiccolor_jax/tiny.py "
            "smaller"
        )
    art = read_art(args.art)
    seen = [entry for entry in art.meta if split_of(entry) == "train"]
    sampling = SamplingDefaults(args.steps, args.guidance, args.sampler)
    with atomic_directory(args.out) as folder:
        write_config(folder, dataclasses.replace(config, sampling=sampling))
        (folder / "ATTRIBUTION.md").write_text(attribution(seen, art.side))
        for name, file in files.items():
            specs = {key: TensorSpec(HALF, spec.shape) for key, spec in file.specs.items()}
            with TensorFileWriter(folder / f"{name}.safetensors", specs) as writer:
                for key, value in _halved(file):
                    writer.write(key, value)
    print(f"{args.out}: {parameters / 1e6:.2f} million parameters")


def _size(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64))


def _halved(file: TensorFile) -> Iterator[tuple[str, Float16[np.ndarray, "..."]]]:
    """Each tensor in 16 bits.

    Raises:
        ValueError: a value is too large for them.
    """
    for key in file.specs:
        value = file.read(key).astype(HALF)
        if not np.isfinite(value).all():
            raise ValueError(
                f"{file.path}: {key} must fit 16 bits: expected finite values, got some that are "
                "not; train with less weight on it"
            )
        yield key, value


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
