"""What a training step minimises: the losses of one batch, weighed and named.

Image-space terms look at x0 hat, the clean picture that the prediction implies at the sample's own
timestep. Decoding it costs more than the denoiser's own evaluation, so they see a random crop, only
samples with little noise, and only some of the steps.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from magiccolor_jax.conditioning.assemble import Dropping, Encoders, assemble, mixes_halves
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.vgg import VGG19
from magiccolor_jax.losses.color import color_loss, warp_colors
from magiccolor_jax.losses.denoising import (
    clean_weight,
    denoising_loss,
    denoising_target,
    min_snr_weight,
    noisy_latents,
    predicted_clean,
)
from magiccolor_jax.losses.edge import edge_weight
from magiccolor_jax.losses.patches import (
    CELL,
    cell_colors,
    cell_owners,
    dino_input,
)
from magiccolor_jax.losses.perceptual import perceptual_loss
from magiccolor_jax.models.magiccolor import MagicColor
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import LATENT_FACTOR, Draws, NullContexts, TokenGrid, TrainingBatch


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses; a weight of 0 leaves the term out of the program."""

    edge: bool = True
    """Sobel edges of the ground truth weigh the denoising loss."""
    min_snr_gamma: float | None = None
    """Min-SNR weighting of the denoising loss (arXiv:2303.09556: 5); None: every timestep alike."""
    timesteps: Literal["uniform", "clean"] = "uniform"
    """How they are drawn: all alike; or as often as the clean latents' error counts in what the
    network predicts, so that the loss is that error, and next to nothing is spent on traces of
    noise. These are spread evenly over a batch."""
    perceptual: float = 0.1
    """Weight of the perceptual network's features on x0 hat."""
    perceptual_network: Literal["vgg19", "autoencoder"] = "vgg19"
    """Whose features: VGG-19's, or the autoencoder's encoder's, where no VGG-19 is at hand."""
    color: float = 0.1
    """Weight of colour matching by DINOv2's features on x0 hat."""
    picture_share: float = 0.5
    """Probability that a step looks at pictures; the terms are divided by it, so that weights mean
    the same whatever it is (before the gradient is clipped: rare steps are long ones)."""
    picture_below: float = 0.6
    """Only samples with t below this share of the schedule count in the image-space terms: beyond,
    x0 hat is a guess."""
    picture_crop: int = 256
    """Side in pixels of the random crop of x0 hat that is decoded; a multiple of 16."""
    draws: int = 1
    """Timesteps and noises that a step draws for each sample: conditions, which do not depend on
    them, are computed once for all. The image-space terms look at the first of each sample."""
    drop: float = 0.1
    """Probability that a sample sees what the unconditional half of guidance sees
    (arXiv:2207.12598)."""

    def __post_init__(self):
        for name in ("perceptual", "color"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"LossConfig: {name} must be a number of at least 0, got {getattr(self, name)}"
                )
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0:
            raise ValueError(
                f"LossConfig: min_snr_gamma must be above 0 or None, got {self.min_snr_gamma}"
            )
        if self.min_snr_gamma is not None and self.timesteps != "uniform":
            raise ValueError(
                "LossConfig: min_snr_gamma weighs timesteps that are drawn alike: expected "
                f"timesteps 'uniform', got {self.timesteps!r}"
            )
        if self.draws < 1:
            raise ValueError(f"LossConfig: draws must be at least 1, got {self.draws}")
        for name in ("picture_share", "picture_below", "drop"):
            low = 0.0 if name == "drop" else 1e-6
            if not low <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"LossConfig: {name} is a share and must lie in [{low}, 1], "
                    f"got {getattr(self, name)}"
                )
        if self.picture_crop < CELL or self.picture_crop % CELL:
            raise ValueError(
                f"LossConfig: picture_crop must be a multiple of {CELL}, got {self.picture_crop}"
            )

    @property
    def sees_pictures(self) -> bool:
        """Whether any term needs x0 hat decoded."""
        return self.perceptual > 0 or self.color > 0

    @property
    def needs_vgg(self) -> bool:
        """Whether VGG-19 is read."""
        return self.perceptual > 0 and self.perceptual_network == "vgg19"


class Frozen(NamedTuple):
    """Networks that training reads and never changes."""

    encoders: Encoders
    dinov2: DINOv2 | None
    """None where it is a part of the model."""
    nulls: NullContexts
    vgg: VGG19 | None = None
    """None where the losses do not read it."""


def reference_encoder(model: MagicColor, frozen: Frozen) -> DINOv2:
    """DINOv2, trained along or frozen."""
    encoder = frozen.dinov2 if model.dinov2 is None else model.dinov2
    assert encoder is not None, "loaded where it is not trained"
    return encoder


class Keys(NamedTuple):
    """One key for each thing that a step draws."""

    timesteps: Array
    noise: Array
    posterior: Array
    canvas: Array
    drop: Array
    tokens: Array
    pictures: Array
    crop: Array

    @classmethod
    def split(cls, key: Array) -> "Keys":
        """Keys of one step."""
        return cls(*jax.random.split(key, len(cls._fields)))


class Objective:
    """The loss of a batch under one recipe, schedule and choice of losses."""

    def __init__(self, cfg: LossConfig, recipe: Recipe, schedule: Schedule):
        """Checks what can be trained.

        Raises:
            ValueError: colour matching mixes the halves of guidance, which training does not have.
        """
        if mixes_halves(recipe):
            raise ValueError(
                "training: color_matching must be 'off' or 'fixed', got the mode that mixes the "
                "halves of guidance, of which training has one"
            )
        self.cfg, self.recipe, self.schedule = cfg, recipe, schedule
        self._alphas = schedule.alphas_cumprod.astype(np.float32)
        weights = clean_weight(schedule.alphas_cumprod, schedule.prediction_type)
        self._shares = np.cumsum(weights / weights.sum()).astype(np.float32)

    def __call__(
        self,
        model: MagicColor,
        frozen: Frozen,
        batch: TrainingBatch,
        keys: Keys,
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean loss of a batch, and its terms.

        Args:
            progress: share of the training that is done, 0..1.
        """
        draws = self.cfg.draws
        several = partial(jax.tree.map, lambda x: jnp.repeat(x, draws, axis=0))
        clean = several(self._clean(frozen, batch, keys.posterior))
        count = clean.shape[0]
        timesteps = self._timesteps(keys.timesteps, count)
        abar = jnp.asarray(self._alphas)[timesteps]
        noise = jax.random.normal(keys.noise, clean.shape)
        noisy = noisy_latents(clean, noise, abar)
        encoder = reference_encoder(model, frozen)
        tokens = self._tokens(encoder, batch)
        if model.dinov2 is None:
            tokens = jax.tree.map(lax.stop_gradient, tokens)
        conditioning = self._condition(model, frozen, batch, tokens, keys)
        output = model(noisy, timesteps, several(conditioning))
        kind = self.schedule.prediction_type
        target = denoising_target(clean, noise, abar, kind)
        weight = None
        if self.cfg.edge:
            weight = several(edge_weight(batch.target, LATENT_FACTOR, progress))
        losses = denoising_loss(output, target, weight)
        if self.cfg.min_snr_gamma is not None:
            losses = losses * min_snr_weight(abar, kind, gamma=self.cfg.min_snr_gamma)
        terms = {"denoise": jnp.mean(losses)}
        if self.cfg.sees_pictures:
            guess = predicted_clean(noisy, output, abar, kind)[::draws]
            counts = timesteps[::draws] < self.cfg.picture_below * len(self._alphas)
            terms |= self._sometimes(frozen, encoder, batch, tokens, guess, counts, keys)
        weighed = [self._weight(name) * term for name, term in terms.items()]
        total = jnp.sum(jnp.stack(weighed))
        return total, {f"loss/{name}": term for name, term in terms.items()} | {"loss": total}

    def _timesteps(self, key: Array, count: int) -> Int[Array, " B"]:
        last = len(self._alphas)
        if self.cfg.timesteps == "uniform":
            return jax.random.randint(key, (count,), 0, last)
        within, order = jax.random.split(key)
        places = jax.random.permutation(order, count) + jax.random.uniform(within, (count,))
        return jnp.minimum(jnp.searchsorted(self._shares, places / count), last - 1)

    def _weight(self, name: str) -> float:
        return 1.0 if name == "denoise" else getattr(self.cfg, name)

    def _clean(self, frozen: Frozen, batch: TrainingBatch, key: Array) -> Float[Array, "B h w C"]:
        posterior = frozen.encoders.vae.encode(batch.target)
        return lax.stop_gradient(posterior.sample(jax.random.normal(key, posterior.mean.shape)))

    def _tokens(self, encoder: DINOv2, batch: TrainingBatch) -> TokenGrid:
        """DINOv2 features of every reference."""
        pixels = batch.case.reference_pixels
        features = encoder(pixels.reshape(-1, *pixels.shape[2:]))
        return TokenGrid(*(x.reshape(*pixels.shape[:2], *x.shape[1:]) for x in features))

    def _condition(self, model, frozen, batch, tokens, keys):
        case, count = batch.case, batch.target.shape[0]
        side = case.canvas.shape[1] // LATENT_FACTOR
        channels = frozen.encoders.vae.cfg.latent_channels
        draws = Draws(
            noise=jnp.zeros((count, 0, 0, channels)),  # the forward process has its own
            canvas=jax.random.normal(keys.canvas, (count, side, side, channels)),
            order=jnp.zeros((count, 0), jnp.int32),
        )
        rows = jax.random.bernoulli(keys.drop, self.cfg.drop, (count,))
        return assemble(
            model,
            frozen.encoders,
            case,
            tokens,
            draws,
            frozen.nulls,
            self.recipe,
            guided=False,
            training=Dropping(rows, keys.tokens),
        )

    def _sometimes(self, frozen, encoder, batch, tokens, guess, counts, keys) -> dict[str, Array]:
        """The image-space terms in a share of the steps, zero in the others."""

        def look(guess):
            terms = self._pictures(frozen, encoder, batch, tokens, guess, keys.crop)
            share = self.cfg.picture_share * counts.shape[0]
            return {name: jnp.sum(jnp.where(counts, x, 0)) / share for name, x in terms.items()}

        if self.cfg.picture_share == 1.0:
            return look(guess)
        names = [name for name in ("perceptual", "color") if self._weight(name)]
        looks = jax.random.bernoulli(keys.pictures, self.cfg.picture_share)
        return lax.cond(looks, look, lambda _: dict.fromkeys(names, jnp.zeros(())), guess)

    def _pictures(
        self,
        frozen: Frozen,
        encoder: DINOv2,
        batch: TrainingBatch,
        tokens: TokenGrid,
        guess: Float[Array, "B h w C"],
        key: Array,
    ) -> dict[str, Float[Array, " B"]]:
        """Each image-space term on a random crop, which begins at a whole cell."""
        crop = random_crop(key, batch.target.shape[1:3], self.cfg.picture_crop, guess.shape[0])
        decoded = frozen.encoders.vae.decode(crop.of(guess, LATENT_FACTOR))
        terms = {}
        if self.cfg.perceptual:
            network = frozen.vgg if self.cfg.needs_vgg else frozen.encoders.vae
            assert network is not None, "loaded where it is read"
            terms["perceptual"] = perceptual_loss(network, decoded, crop.of(batch.target, 1))
        if self.cfg.color:
            seen = encoder(dino_input(batch.target, encoder.cfg.patch_size)).patches
            warped = warp_colors(
                lax.stop_gradient(seen),
                cell_owners(batch.case.instance_map),
                lax.stop_gradient(tokens.patches),
                batch.colors,
                batch.counts,
            )
            seen = jax.tree.map(lambda x: crop.of(x, CELL), warped)
            terms["color"] = color_loss(cell_colors(decoded), seen)
        return terms


class Crop(NamedTuple):
    """The same part of several arrays of different resolutions."""

    top: Int[Array, " B"]
    """In cells."""
    left: Int[Array, " B"]
    """In cells."""
    size: tuple[int, int]
    """Height and width in pixels."""

    def of(self, x: Shaped[Array, "B H W *C"], reduction: int) -> Array:
        """The part of an array that has one entry per `reduction` pixels along each axis."""
        height, width = (side // reduction for side in self.size)
        scale = CELL // reduction

        def one(x, top, left):
            return lax.dynamic_slice(
                x,
                (top * scale, left * scale, *[0] * (x.ndim - 2)),
                (height, width, *x.shape[2:]),
            )

        return jax.vmap(one)(x, self.top, self.left)


def random_crop(key: Array, page: tuple[int, int], side: int, count: int) -> Crop:
    """A crop of each sample, at most as large as the page (its sides are multiples of a cell)."""
    height, width = min(side, page[0]), min(side, page[1])
    rows, columns = jax.random.split(key)
    return Crop(
        jax.random.randint(rows, (count,), 0, (page[0] - height) // CELL + 1),
        jax.random.randint(columns, (count,), 0, (page[1] - width) // CELL + 1),
        (height, width),
    )
