"""Trains the KL autoencoder from nothing, where no pretrained one is at hand.

It learns from crops of the scenes' pages and of their references. Its scaling factor is measured
at the end, and gives latents of deviation 1.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from rich.console import Console

from magiccolor_jax.checkpoint import ModelConfig, load_network, read_config
from magiccolor_jax.data.scenes import Source
from magiccolor_jax.embedded import model_folder
from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.training.crops import Crops
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.pretraining import Pretraining, PretrainingConfig, signed
from magiccolor_jax.training.step import Metrics
from magiccolor_jax.types import Sizes

AREA = 4
"""Side of the areas whose colours count by themselves, in pixels; divides every crop."""

DECODER = re.compile(r"(decoder|post_quant_conv)/.*")
"""Parameters of the decoder."""

PREVIEWED = 6
"""Crops on a preview."""

MEASURED = 8
"""Batches by which the latents are scaled."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(PretrainingConfig):
    """Train the autoencoder."""

    network: VAEConfig
    """Its sizes; the scaling factor is measured."""
    init: Path | None = None
    """Model folder, or `tiny`, the embedded one, whose autoencoder of these sizes is gone on from;
    None: from nothing."""
    decoder_only: bool = False
    """Leave the encoder as `init` has it, and so the latents that other networks learnt."""
    noise: float = 0.0
    """Deviation of what is added to latents before they are decoded, beside the posterior's own:
    what a sampler makes is not exact either."""
    crop: int = 64
    """Side in pixels of what a step sees; a multiple of the network's reduction."""
    page: int = 256
    """Largest longest side at which pages are shown."""
    kl: float = 1e-4
    """Weight of the latents' divergence from standard noise."""
    coarse: float = 1.0
    """Weight of the error of areas' mean colours, which is what lines are laid over."""
    slope: float = 0.5
    """Weight of the error of neighbours' differences: edges stay where they are."""

    COUNTS: ClassVar[tuple[str, ...]] = (*PretrainingConfig.COUNTS, "crop", "page")

    def __post_init__(self):
        super().__post_init__()
        if self.decoder_only and self.init is None:
            raise ValueError(
                "AutoencoderConfig: decoder_only needs init, the folder of the encoder that stays"
            )
        if self.crop % self.network.reduction:
            raise ValueError(
                f"AutoencoderConfig: crop must be a multiple of {self.network.reduction}, "
                f"got {self.crop}"
            )


def objective(
    cfg: AutoencoderConfig, model: VAE, pixels: Float[Array, "B S S 3"], key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """Errors of colours, also of whole areas, and of edges, and a little of the divergence
    (arXiv:1312.6114)."""
    posterior = model.encode(pixels)
    keys = jax.random.split(key)
    own, more = (jax.random.normal(key, posterior.mean.shape) for key in keys)
    latents = posterior.sample(own) + cfg.noise * more
    gap = model.decode(latents) - pixels
    error = jnp.mean(jnp.square(gap))
    count, side = gap.shape[0], gap.shape[1] // AREA
    areas = gap.reshape(count, side, AREA, side, AREA, -1).mean(axis=(2, 4))
    coarse = jnp.mean(jnp.square(areas)) + jnp.mean(jnp.abs(areas))
    slopes = [jnp.mean(jnp.abs(jnp.diff(gap, axis=axis))) for axis in (1, 2)]
    variance = jnp.square(posterior.std)
    divergence = 0.5 * jnp.mean(jnp.square(posterior.mean) + variance - 1 - jnp.log(variance))
    loss = error + jnp.mean(jnp.abs(gap)) + cfg.coarse * coarse
    loss += cfg.slope * sum(slopes) + cfg.kl * divergence
    return loss, {
        "loss": loss,
        "psnr": 10 * jnp.log10(4 / error),  # pixels span 2
        "coarse": coarse,
        "divergence": divergence,
        "spread": jnp.std(latents),
    }


class AutoencoderTraining(Pretraining):
    """A run of the autoencoder's."""

    NAME, KEPT = "autoencoder", "seed, crop, page and batch"
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, console: Console):
        """Raises ValueError or CaseError where a source cannot be opened."""
        self.sizes = _sizes(config)
        super().__init__(config, console, _first_network(config, self.sizes))
        self.rebuild = jax.jit(self._rebuild)

    def stays(self, path: str) -> bool:
        """The encoder, where the decoder alone goes on."""
        return self.config.decoder_only and not DECODER.fullmatch(path)

    def what_decides_batches(self) -> list[Any]:
        """Settings of the crops."""
        config = self.config
        return [config.seed, config.crop, config.page, config.batch]

    def batches(self, source: Source) -> Crops:
        """Crops."""
        config = self.config
        return Crops(source, config.seed, config.batch, config.page, config.crop)

    def objective(
        self, model: VAE, batch: UInt8[Array, "B S S 3"], key: Array
    ) -> tuple[Float[Array, ""], Metrics]:
        """Of crops, 0..255."""
        return objective(self.config, model, signed(batch), key)

    def preview(
        self, values: Parameters, batch: UInt8[np.ndarray, "B S S 3"]
    ) -> list[list[Float[np.ndarray, "_ _ 3"]]]:
        """Crops, and what becomes of them."""
        shown = batch[:PREVIEWED]
        made, _ = self.rebuild(values, shown)
        return [list(np.asarray(signed(shown))), list(np.asarray(made))]

    def model(self, values: Parameters) -> ModelConfig:
        """With the latents' scale: measured on crops beyond the training's."""
        config, sizes = self.config, self.sizes
        if not config.decoder_only:
            crops, first = self.batches(self.source), config.steps
            pixels = np.concatenate([crops(first + number) for number in range(MEASURED)])
            _, spread = self.rebuild(values, pixels)
            sizes = dataclasses.replace(sizes, scaling_factor=sizes.scaling_factor / float(spread))
        return ModelConfig(networks={"vae": sizes}, sizes=Sizes(page=config.page))

    def _rebuild(self, values: Parameters, pixels: UInt8[Array | np.ndarray, "B S S 3"]):
        """Crops after the latents' means, and the deviation of these."""
        model: Any = self.layout.build(values)
        latents = model.encode(signed(pixels)).mean
        return model.decode(latents), jnp.std(latents)


def _sizes(config: AutoencoderConfig) -> VAEConfig:
    """Sizes of the network, with the latents' scale as far as it is known.

    Raises:
        FileNotFoundError, ValueError: `init` is no model folder, or of other sizes.
    """
    plain_sizes = dataclasses.replace(config.network, scaling_factor=1.0)
    if config.init is None:
        return plain_sizes
    found = read_config(model_folder(config.init)).networks.get("vae")
    if found is None or dataclasses.replace(found, scaling_factor=1.0) != plain_sizes:
        raise ValueError(
            f"{config.init}: an autoencoder is gone on from at its own sizes: expected "
            f"{config.network}, got {found}; name another --init, or change --network"
        )
    return found


def _first_network(config: AutoencoderConfig, sizes: VAEConfig) -> nnx.Module:
    """Drawn, or read from `init`."""
    if config.init is None:
        return VAE(sizes, rngs=nnx.Rngs(config.seed))
    return load_network(model_folder(config.init), "vae", sizes)
