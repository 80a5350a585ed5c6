"""The same random inputs for PyTorch and JAX, channels last, and the files that carry them."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped
from safetensors.numpy import load_file, save_file

from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.models.color_matching import RELEASE_POINTS

Arrays = dict[str, Shaped[np.ndarray, "..."]]
Page = tuple[int, int]
"""Height and width in pixels."""


def page_name(page: Page) -> str:
    """`384x640`."""
    return f"{page[0]}x{page[1]}"


def parse_page(text: str) -> Page:
    """The inverse of `page_name`.

    Raises:
        ValueError: it is not height x width in multiples of 64 pixels.
    """
    sides = tuple(int(side) for side in text.split("x") if side.isdigit())
    if len(sides) != 2 or any(side % 64 or not side for side in sides):
        raise ValueError(f"page: expected HEIGHTxWIDTH in multiples of 64 px, got {text!r}")
    return sides[0], sides[1]


def save(path: Path, arrays: Arrays) -> None:
    """Writes a safetensors file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def load(path: Path) -> Arrays:
    """Reads what `save` wrote."""
    return load_file(path)


def network_inputs(config: ModelConfig, page: Page, instances: int = 3) -> Arrays:
    """One input for every network; rows of `latents`, `context` and `sketch` are a batch of two.

    Three context tokens: with one key, cross-attention does not depend on queries and keys.
    """
    random, networks = np.random.default_rng(page), config.networks
    denoiser, dinov2 = networks["denoiser"], networks["dinov2"]
    grid = config.sizes.grid

    def normal(*shape: int) -> Float[np.ndarray, "..."]:
        return random.standard_normal(shape, np.float32)

    latent = tuple(side // networks["vae"].reduction for side in page)
    return {
        "latents": normal(2, *latent, denoiser.in_channels),
        "timesteps": np.array([981, 1]),
        "context": normal(2, 3, denoiser.context),
        "sketch": smooth(random, 2, page),
        "patches": normal(instances, grid, grid, dinov2.hidden_size),
        "id_map": overlapping(page, instances),
        "clip_pixels": normal(2, *[config.sizes.clip] * 2, 3),
        "reference_pixels": normal(2, *[config.sizes.reference] * 2, 3),
        "clip_text_ids": _prompts(random, networks["clip_text"]),
        "text_encoder_ids": _prompts(random, networks["text_encoder"]),
    }


def _prompts(random: np.random.Generator, config) -> Int[np.ndarray, "2 S"]:
    """BOS, words and EOS, as long as the text encoder allows."""
    ids = random.integers(0, config.empty_prompt[0], (2, config.max_position_embeddings))
    ids[:, 0], ids[:, -1] = config.empty_prompt
    return ids


def case_inputs(config: ModelConfig, page: Page, instances: int = 3) -> Arrays:
    """One case as pictures, and every random draw of its sample."""
    random, vae = np.random.default_rng(page), config.networks["vae"]
    sizes = config.sizes
    canvas, clip, dinov2 = ((side, side) for side in (sizes.canvas, sizes.clip, sizes.reference))
    positions = (
        np.prod(canvas) // (vae.reduction * config.networks["denoiser"].match_reduction) ** 2
    )

    def noise(sides: Page) -> Float[np.ndarray, "1 h w C"]:
        shape = (1, *(side // vae.reduction for side in sides), vae.latent_channels)
        return random.standard_normal(shape, np.float32)

    return {
        "sketch": smooth(random, 1, page),
        "canvas": smooth(random, 1, canvas),
        "clip_pixels": smooth(random, 1, clip),
        "reference_pixels": smooth(random, instances, dinov2),
        "id_map": overlapping(page, instances),
        "noise": noise(page),
        "canvas_noise": noise(canvas),
        "order": random.permutation(positions)[:RELEASE_POINTS],
    }


def smooth(random: np.random.Generator, count: int, sides: Page) -> Float[np.ndarray, "n H W 3"]:
    """Random pictures in [-1, 1] with shapes in them: noise has no features to match."""
    coarse = random.standard_normal((count, 8, 8, 3), np.float32)
    size = sides[::-1]
    return np.tanh([cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in coarse])


def overlapping(page: Page, instances: int) -> Int[np.ndarray, "H W"]:
    """Who owns each pixel: ids 1..K in boxes along the diagonal, each a little over the last."""
    owner = np.zeros(page, np.int64)
    for index in range(instances):
        (top, bottom), (left, right) = (
            (index * side // (instances + 1), (index + 2) * side // (instances + 1) - 5)
            for side in page
        )
        owner[top:bottom, left:right] = index + 1
    return owner
