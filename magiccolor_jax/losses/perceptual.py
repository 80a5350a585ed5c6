"""Perceptual loss: distance between VGG-19's features (arXiv:1603.08155, equation 2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from magiccolor_jax.encoders.vgg import VGG19


def perceptual_loss(
    vgg: VGG19, predicted: Float[Array, "B H W 3"], target: Float[Array, "B H W 3"]
) -> Float[Array, " B"]:
    """Mean squared difference of each chosen activation, relative to the target's, averaged.

    Args:
        vgg: frozen; its config says which activations.
        predicted: x0 hat, decoded, about [-1, 1].
        target: the ground truth, [-1, 1].
    """
    # differs: activations of deeper layers are larger by orders; relative, each counts alike.
    pairs = zip(vgg(_unit(predicted)), vgg(_unit(target)), strict=True)
    terms = [
        _relative(ours.astype(jnp.float32), theirs.astype(jnp.float32)) for ours, theirs in pairs
    ]
    return jnp.mean(jnp.stack(terms), axis=0)


def _unit(pixels: Array) -> Array:
    """[-1, 1] -> [0, 1], which VGG-19 normalises by itself."""
    return (pixels + 1) / 2


def _relative(ours: Array, theirs: Array) -> Array:
    axes = (1, 2, 3)
    return jnp.mean(jnp.square(ours - theirs), axes) / (jnp.mean(jnp.square(theirs), axes) + 1e-6)
