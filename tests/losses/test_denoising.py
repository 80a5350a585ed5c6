"""The denoising loss and what belongs to it, against float64 NumPy and diffusers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.losses.denoising import (
    clean_weight,
    denoising_loss,
    denoising_target,
    min_snr_weight,
    noisy_latents,
    predicted_clean,
)

TIMESTEPS = np.array([0, 37, 500, 999])
ABAR = Schedule.sd15().alphas_cumprod[TIMESTEPS]
SHAPE = (4, 3, 5, 4)


def normal(seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(SHAPE), jnp.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_one_number_per_sample(weighted):
    output, target = normal(0), normal(1)
    weight = 1 + np.random.default_rng(2).random((4, 3, 5, 1))
    expected = ((np.float64(output) - target) ** 2 * (weight if weighted else 1)).mean((1, 2, 3))
    found = denoising_loss(output, target, jnp.float32(weight) if weighted else None)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_the_clean_latents_back(prediction):
    clean, noise, abar = normal(0), normal(1), jnp.asarray(ABAR, jnp.float32)
    noisy = noisy_latents(clean, noise, abar)
    target = denoising_target(clean, noise, abar, prediction)
    found = predicted_clean(noisy, target, abar, prediction)
    # At t = 999 noise is 15 times the signal, so rounding is as well.
    np.testing.assert_allclose(found, clean, atol=3e-5)


@pytest.mark.torch
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_equals_diffusers(prediction):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    clean, noise = torch.tensor(np.asarray(normal(0))), torch.tensor(np.asarray(normal(1)))
    steps, abar = torch.tensor(TIMESTEPS), jnp.asarray(ABAR, jnp.float32)
    ours = noisy_latents(normal(0), normal(1), abar)
    np.testing.assert_allclose(ours, scheduler.add_noise(clean, noise, steps), atol=2e-6)
    if prediction == "v_prediction":
        ours = denoising_target(normal(0), normal(1), abar, prediction)
        np.testing.assert_allclose(ours, scheduler.get_velocity(clean, noise, steps), atol=2e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_is_one_weight_on_the_clean_latents(prediction):
    """Weighted by it, the loss of the output is min(SNR, gamma) times the loss of x0."""
    clean, noise, abar = normal(0), normal(1), jnp.asarray(ABAR, jnp.float32)
    noisy = noisy_latents(clean, noise, abar)
    target = denoising_target(clean, noise, abar, prediction)
    wrong = target + 0.1 * normal(2)
    of_output = denoising_loss(wrong, target) * min_snr_weight(abar, prediction, gamma=5.0)
    of_clean = denoising_loss(predicted_clean(noisy, wrong, abar, prediction), clean)
    snr = ABAR / (1 - ABAR)
    np.testing.assert_allclose(of_output, np.minimum(snr, 5.0) * of_clean, rtol=2e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_clean_weight_is_that_of_the_clean_latents(prediction):
    clean, noise, abar = normal(0), normal(1), jnp.asarray(ABAR, jnp.float32)
    noisy = noisy_latents(clean, noise, abar)
    wrong = denoising_target(clean, noise, abar, prediction) + 0.1 * normal(2)
    of_output = denoising_loss(wrong, denoising_target(clean, noise, abar, prediction))
    of_clean = denoising_loss(predicted_clean(noisy, wrong, abar, prediction), clean)
    np.testing.assert_allclose(of_output * clean_weight(ABAR, prediction), of_clean, rtol=2e-2)


def test_gradients_reach_the_output():
    gradient = jax.grad(lambda output: denoising_loss(output, normal(1)).sum())(normal(0))
    np.testing.assert_allclose(gradient, 2 * (normal(0) - normal(1)) / 60, rtol=1e-5)
