"""The perceptual loss on VGG-19's features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.randomise import randomise

from magiccolor_jax.encoders.vae import VAE, VAEConfig
from magiccolor_jax.encoders.vgg import VGG19, VGG19Config
from magiccolor_jax.losses.perceptual import perceptual_loss
from magiccolor_jax.nn.abstract import abstract

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def vgg():
    return randomise(abstract(VGG19, VGG19Config.nano()), seed=0)


def picture(seed):
    return jax.random.uniform(jax.random.key(seed), (2, 32, 48, 3), minval=-1, maxval=1)


def test_is_the_mean_over_the_layers(vgg):
    predicted, target = picture(0), picture(1)
    features = [vgg((pixels + 1) / 2) for pixels in (predicted, target)]
    terms = [
        np.square(np.float64(x) - y).mean((1, 2, 3)) / np.square(np.float64(y)).mean((1, 2, 3))
        for x, y in zip(*features, strict=True)
    ]
    assert len(terms) == 5
    found = perceptual_loss(vgg, predicted, target)
    np.testing.assert_allclose(found, np.mean(terms, axis=0), rtol=1e-4)


def test_each_sample_is_its_own(vgg):
    predicted, target = picture(0), picture(1)
    found = perceptual_loss(vgg, jnp.stack([target[0], predicted[1]]), target)
    assert found[0] == 0 and found[1] > 0.01


def test_pixels_beyond_the_range_still_have_a_gradient(vgg):
    """x0 hat overshoots: clipping it would leave it there."""
    pixels = 3 * picture(0)
    gradient = jax.grad(lambda x: perceptual_loss(vgg, x, picture(1)).sum())(pixels)
    outside = np.abs(pixels) > 1
    assert np.abs(gradient)[outside].mean() > 1e-5 and np.isfinite(gradient).all()


def test_the_autoencoders_encoder_takes_its_place():
    vae = randomise(abstract(VAE, VAEConfig.nano()), seed=0)
    predicted, target = picture(0), picture(1)
    features = [vae.features(pixels) for pixels in (predicted, target)]
    assert [x.shape[1:3] for x in features[0]] == [(16, 24), (8, 12), (4, 6), (4, 6)]
    terms = [
        np.square(np.float64(x) - y).mean((1, 2, 3)) / np.square(np.float64(y)).mean((1, 2, 3))
        for x, y in zip(*features, strict=True)
    ]
    found = perceptual_loss(vae, predicted, target)
    np.testing.assert_allclose(found, np.mean(terms, axis=0), rtol=1e-4)
