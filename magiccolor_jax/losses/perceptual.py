"""Perceptual loss: distance between a network's features (arXiv:1603.08155, equation 2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from magiccolor_jax.encoders.vae import VAE
from magiccolor_jax.encoders.vgg import VGG19


def perceptual_loss(
    network: VGG19 | VAE, predicted: Float[Array, "B H W 3"], target: Float[Array, "B H W 3"]
) -> Float[Array, " B"]:
    """Mean squared difference of each chosen activation, relative to the target's, averaged.

    Args:
        network: frozen; VGG-19, whose config says which activations, or, where it is not at hand,
            the autoencoder, whose encoder's levels are compared.
        predicted: x0 hat, decoded, about [-1, 1].
        target: the ground truth, [-1, 1].
    """
    # differs: activations of deeper layers are larger by orders; relative, each counts alike.
    pairs = zip(_features(network, predicted), _features(network, target), strict=True)
    terms = [
        _relative(ours.astype(jnp.float32), theirs.astype(jnp.float32)) for ours, theirs in pairs
    ]
    return jnp.mean(jnp.stack(terms), axis=0)


def _features(network: VGG19 | VAE, pixels: Array) -> tuple[Array, ...]:
    """Of pixels in [-1, 1]; VGG-19 normalises [0, 1] by itself."""
    return network.features(pixels) if isinstance(network, VAE) else network((pixels + 1) / 2)


def _relative(ours: Array, theirs: Array) -> Array:
    axes = (1, 2, 3)
    return jnp.mean(jnp.square(ours - theirs), axes) / (jnp.mean(jnp.square(theirs), axes) + 1e-6)
