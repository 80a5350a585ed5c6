"""A small model folder for `overfit.py`: its autoencoder is trained here, its encoders are random.

No pretrained network is at hand, and none is needed to fit a few pages: what DINOv2 and CLIP do
with random weights still tells colours apart. The autoencoder must be real, for latents of a random
one cannot be turned back into pictures.
"""

import dataclasses
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float
from rich.progress import track

from magiccolor_jax.checkpoint import (
    CONFIG_NAME,
    KINDS,
    ModelConfig,
    save_network,
    write_config,
)
from magiccolor_jax.data.loader import DataConfig, Sampling, batches
from magiccolor_jax.data.samples import Maker, Play
from magiccolor_jax.data.sources import open_source
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

SIZES = Sizes(page=128, canvas=128, reference=112, clip=32)
LATENT_CHANNELS = 16
DINO = DINOv2Config.nano(image_size=112)
AUTOENCODER = VAEConfig(
    channels=(16, 16, 32, 64),
    layers=1,
    latent_channels=LATENT_CHANNELS,
    groups=8,
    scaling_factor=1.0,
)
BLOCKS: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "channels": (64, 96),
    "attention": (True, True),
    "heads": 4,
    "groups": 16,
    "context": CLIPVisionConfig.nano().projection_dim,
}
GUIDER: dict[str, Any] = BLOCKS | {"embedding_channels": (8, 8, 16, 64)}

TRAINED: dict[str, Any] = {
    "denoiser": UNetConfig(**BLOCKS, out_channels=LATENT_CHANNELS),
    "reference": UNetConfig(**BLOCKS, head=False),
    "sketch_guider": ControlNetConfig(**GUIDER),
    "instance_guider": ControlNetConfig(
        **GUIDER, conditioning_channels=DINO.hidden_size, adapter=True
    ),
}
"""Drawn by the trainings themselves (`--stage.origins` random)."""

RANDOM: dict[str, Any] = {
    "clip_vision": CLIPVisionConfig.nano(),
    "clip_text": CLIPTextConfig.nano(),
    "text_encoder": CLIPTextConfig.nano(),
    "dinov2": DINO,
}

Network = TypeVar("Network", bound=nnx.Module)

BATCH = 4
CROP = 64
"""Pixels."""

WHOLE = 0.15
"""Share of the steps that see whole pictures."""

KL_WEIGHT = 3e-4
PEAK_LR = 3e-3


def make_model(folder: Path, cases: Path, steps: int, play: Play, seed: int) -> None:
    """Writes a model folder to start from; one that is there is left as it is.

    Args:
        cases: case folders with targets, which the autoencoder learns.
        steps: of its training.
        play: what happens to the cases.
    """
    if (folder / CONFIG_NAME).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder, scaling = train_autoencoder(pictures(cases, play, steps, seed), steps, seed)
    save_network(folder / "vae.safetensors", autoencoder)
    for name, cfg in RANDOM.items():
        module = next(module for kind, module in KINDS.values() if type(cfg) is kind)
        save_network(folder / f"{name}.safetensors", random_network(module, cfg, name))
    networks = TRAINED | RANDOM
    networks["vae"] = dataclasses.replace(AUTOENCODER, scaling_factor=scaling)
    schedule = dataclasses.replace(
        Schedule.sd15(), prediction_type="v_prediction", timestep_spacing="trailing"
    )
    write_config(folder, ModelConfig(networks=networks, sizes=SIZES, schedule=schedule))


def pictures(
    cases: Path, play: Play, steps: int, seed: int
) -> Iterator[Float[np.ndarray, "B H W 3"]]:
    """Pages and collages of references, [-1, 1], as trainings show them to the autoencoder.

    Crops of them at first, which are cheaper, whole ones at the end.
    """
    source = open_source(f"cases:{cases}")
    maker = Maker(play, Recipe.paper(), SIZES, instances=10)
    sampling = Sampling.of(source, maker, BATCH, seed)
    random = np.random.default_rng(seed)
    reading = batches(sampling, DataConfig(threads=1), range(BATCH), range(steps))
    for number, batch in enumerate(reading):
        whole = np.concatenate([batch.target, batch.case.canvas])
        top, left = random.integers(0, SIZES.page - CROP + 1, 2)
        cut = whole[:, top : top + CROP, left : left + CROP]
        yield cut if number < (1 - WHOLE) * steps else whole


def train_autoencoder(
    shown: Iterator[Float[np.ndarray, "B H W 3"]], steps: int, seed: int
) -> tuple[VAE, float]:
    """The trained autoencoder, and the scaling factor that its latents want."""
    graph, state = nnx.split(random_network(VAE, AUTOENCODER, "vae"))
    rate = optax.warmup_cosine_decay_schedule(0, PEAK_LR, min(50, steps), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    moments = optimizer.init(state)

    @jax.jit
    def step(state, moments, pixels, key):
        (_, found), slope = jax.value_and_grad(autoencoding_loss, argnums=1, has_aux=True)(
            graph, state, pixels, key
        )
        updates, moments = optimizer.update(slope, moments, state)
        return optax.apply_updates(state, updates), moments, found

    found = {}
    for number, pixels in enumerate(track(shown, "autoencoder", total=steps)):
        key = jax.random.fold_in(jax.random.key(seed), number)
        state, moments, found = step(state, moments, jnp.asarray(pixels), key)
        if number % 250 == 0:
            print(f"autoencoder, step {number}: {_decibels(found):.1f} dB", flush=True)
    print(f"autoencoder, after {steps} steps: {_decibels(found):.1f} dB")
    return nnx.merge(graph, state), 1 / float(found["spread"])


def autoencoding_loss(
    graph: Any, state: Any, pixels: Float[Array, "B H W 3"], key: Array
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Squared error and a little of the latents' divergence from noise (arXiv:1312.6114)."""
    model = nnx.merge(graph, state)
    posterior = model.encode(pixels)
    latents = posterior.sample(jax.random.normal(key, posterior.mean.shape))
    error = jnp.mean(jnp.square(model.decode(latents) - pixels))
    variance = jnp.square(posterior.std)
    divergence = 0.5 * jnp.mean(jnp.square(posterior.mean) + variance - 1 - jnp.log(variance))
    return error + KL_WEIGHT * divergence, {"error": error, "spread": jnp.std(latents)}


def _decibels(found: dict[str, Any]) -> float:
    """Peak signal-to-noise ratio of a batch; pixels span 2."""
    return 10 * math.log10(4 / float(found["error"]))


def random_network(module: type[Network], cfg: Any, name: str) -> Network:
    """A network with random weights that keep activations of order one."""
    network = abstract(module, cfg)
    graph, state = nnx.split(network)
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(drawn("/".join(map(str, (name, *path))), leaf.shape)))
    return nnx.merge(graph, state)


def drawn(path: str, shape: tuple[int, ...]) -> Float[np.ndarray, "*S"]:
    """The first value of a parameter: of kernels and tables noise, ones and zeros elsewhere."""
    leaf = path.rsplit("/", 1)[-1]
    if leaf in ("scale", "gamma"):
        return np.ones(shape, np.float32)
    if leaf == "bias":
        return np.zeros(shape, np.float32)
    noise = np.random.default_rng(zlib.crc32(path.encode())).standard_normal(shape, np.float32)
    return noise / np.float32(math.sqrt(math.prod(shape[:-1]))) if leaf == "kernel" else noise / 2
