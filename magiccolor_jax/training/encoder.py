"""Trains the reference encoder from nothing: what two views show of one part has one feature.

A contrastive loss (InfoNCE, arXiv:1807.03748) over the patches of many drawings, and one over
their class tokens. The stages then use the encoder frozen, as they use a downloaded DINOv2.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from rich.console import Console

from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.data.scenes import Source
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.training.correspondences import Correspondences, Pairs
from magiccolor_jax.training.parameters import Parameters
from magiccolor_jax.training.pretraining import Pretraining, PretrainingConfig
from magiccolor_jax.training.step import Metrics
from magiccolor_jax.types import Sizes

SAME, NEAR = 0.75, 1.5
"""Largest distance in patches of two that show the same part, and of two that are neighbours."""

HIDDEN = -1e9
"""Likeness to what does not take part."""

PREVIEWED = 6
"""Drawings on a preview."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(PretrainingConfig):
    """Train the reference encoder."""

    encoder: DINOv2Config
    """Its sizes."""
    views: SelfPlay = field(default_factory=SelfPlay)
    """How a view departs from its drawing."""
    temperature: float = 0.1
    """Of the likenesses, which are cosines."""
    whole: float = 0.5
    """Weight of the loss of class tokens."""

    @property
    def sizes(self) -> Sizes:
        """Of references."""
        return Sizes(reference=self.encoder.image_size, patch=self.encoder.patch_size)


def contrast(
    likeness: Float[Array, "N M"], positive: Bool[Array, "N M"], known: Bool[Array, " M"]
) -> Float[Array, ""]:
    """InfoNCE: mean negative log share of the positives, over rows that have one.

    Args:
        likeness: of two sides' vectors, over the temperature.
        positive: which pairs are one.
        known: columns that take part.
    """
    logs = jax.nn.log_softmax(jnp.where(known, likeness, HIDDEN), axis=1)
    counts = positive.sum(1)
    share = jnp.where(positive, logs, 0).sum(1) / jnp.maximum(counts, 1)
    return -jnp.sum(share) / jnp.maximum((counts > 0).sum(), 1)


class EncoderTraining(Pretraining):
    """A run of the reference encoder's."""

    NAME, KEPT = "reference encoder", "seed, batch, encoder and views"
    config: EncoderConfig

    def __init__(self, config: EncoderConfig, console: Console):
        """Raises ValueError or CaseError where a source cannot be opened."""
        super().__init__(config, console, DINOv2(config.encoder, rngs=nnx.Rngs(config.seed)))
        self.features = jax.jit(lambda values, pixels: self.layout.build(values)(pixels).patches)

    def what_decides_batches(self) -> list[Any]:
        """Settings of the views."""
        config = self.config
        return [config.seed, config.batch, config.sizes, config.views]

    def batches(self, source: Source) -> Correspondences:
        """Pairs of views."""
        config = self.config
        return Correspondences(source, config.seed, config.batch, config.sizes, config.views)

    def objective(
        self, model: DINOv2, batch: Pairs, key: Array
    ) -> tuple[Float[Array, ""], Metrics]:
        """Of both directions; nothing is random.

        `accuracy` and `near` are shares of the first view's patches whose likest patch of the
        second view shows the same part, or a neighbour of it.
        """
        pixels, places = (jnp.asarray(x) for x in batch)
        count, temperature = pixels.shape[1], self.config.temperature
        found = model(pixels.reshape(-1, *pixels.shape[2:]))
        patches = _unit(found.patches).reshape(2, count, -1, found.patches.shape[-1])
        known, gaps = _gaps(places)
        likeness = jnp.einsum("bic,djc->bidj", *patches) / temperature  # [B G B G]
        own = jnp.eye(count, dtype=bool)[:, None, :, None]
        parts = []
        for axis in (2, 1):  # of each patch of one side the nearest of the other
            nearest = (gaps == gaps.min(axis, keepdims=True)) & (gaps < SAME)
            pairs = nearest[:, :, None] & own
            alike, same = (x.reshape(known[0].size, -1) for x in (likeness, pairs))
            if axis == 1:
                alike, same = alike.T, same.T
            parts.append(contrast(alike, same, known[axis - 1].ravel()))
        tokens = _unit(found.cls).reshape(2, count, -1)
        whole = tokens[0] @ tokens[1].T / temperature
        itself, everyone = jnp.eye(count, dtype=bool), jnp.ones(count, bool)
        wholes = [contrast(x, itself, everyone) for x in (whole, whole.T)]
        terms = {"parts": sum(parts) / 2, "whole": sum(wholes) / 2}
        loss = terms["parts"] + self.config.whole * terms["whole"]
        return loss, {"loss": loss, **terms, **_accuracy(patches, known, gaps)}

    def preview(self, values: Parameters, batch: Pairs) -> list[list[Float[np.ndarray, "_ _ 3"]]]:
        """First views, second views, and the second views made of the first's likest patches."""
        grid, patch = self.config.sizes.grid, self.config.sizes.patch
        first, second = (_shown(side[:PREVIEWED]) for side in batch.pixels)
        features = [
            np.asarray(_unit(self.features(values, side[:PREVIEWED]))) for side in batch.pixels
        ]
        rows = [x.reshape(len(x), grid * grid, -1) for x in features]
        likest = np.einsum("bic,bjc->bij", rows[1], rows[0]).argmax(2)
        cut = first.reshape(-1, grid, patch, grid, patch, 3).swapaxes(2, 3)
        cut = cut.reshape(len(first), grid * grid, patch, patch, 3)
        laid = np.take_along_axis(cut, likest[..., None, None, None], axis=1)
        laid = laid.reshape(-1, grid, grid, patch, patch, 3).swapaxes(2, 3).reshape(first.shape)
        return [list(first), list(second), list(laid)]

    def model(self, values: Parameters) -> ModelConfig:
        """The encoder alone."""
        return ModelConfig(networks={"dinov2": self.config.encoder})


def _unit(vectors: Float[Array, "*s C"]) -> Float[Array, "*s C"]:
    return vectors / (jnp.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-6)


def _gaps(
    places: Float[Array, "2 B g g 2"],
) -> tuple[Bool[Array, "2 B G"], Float[Array, "B G G"]]:
    """Which patches show one part; and distances from the first view's to the second's, in patches,
    infinite where one of them does not."""
    grid = places.shape[2]
    flat = places.reshape(*places.shape[:2], grid * grid, 2)
    known = jnp.isfinite(flat).all(-1)
    first, second = jnp.where(known[..., None], flat, 0)
    gaps = grid * jnp.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    return known, jnp.where(known[0, :, :, None] & known[1, :, None], gaps, jnp.inf)


def _accuracy(
    patches: Float[Array, "2 B G C"], known: Bool[Array, "2 B G"], gaps: Float[Array, "B G G"]
) -> Metrics:
    """How often the likest patch of the same drawing is the right one, or beside it."""
    likeness = jnp.einsum("bic,bjc->bij", *patches)
    likest = jnp.where(known[1, :, None], likeness, HIDDEN).argmax(2)
    reached = jnp.take_along_axis(gaps, likest[..., None], axis=2)[..., 0]
    asked = gaps.min(2) < SAME
    count = jnp.maximum(asked.sum(), 1)
    limits = {"accuracy": SAME, "near": NEAR}
    return {name: (asked & (reached < limit)).sum() / count for name, limit in limits.items()}


def _shown(pixels: Float[np.ndarray, "B R R 3"]) -> Float[np.ndarray, "B R R 3"]:
    """ImageNet's normalisation undone, in [-1, 1]."""
    unit = pixels * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    return 2 * unit - 1
