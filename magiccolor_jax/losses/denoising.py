"""The denoising loss, its weights over timesteps, the clean latents that a prediction implies."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from magiccolor_jax.diffusion.schedule import Prediction


def denoising_loss(
    output: Float[Array, "B h w C"],
    target: Float[Array, "B h w C"],
    weight: Float[Array, "B h w 1"] | None = None,
) -> Float[Array, " B"]:
    """Mean squared error of the predicted noise or velocity (arXiv:2006.11239, equation 14).

    Args:
        weight: of each latent position, as `edge.edge_weight` gives it; default 1.
    """
    squares = jnp.square(output.astype(jnp.float32) - target)
    return jnp.mean(squares if weight is None else weight * squares, axis=(1, 2, 3))


def min_snr_weight(
    alphas_cumprod: Float[Array, " B"], prediction: Prediction, *, gamma: float = 5.0
) -> Float[Array, " B"]:
    """Min-SNR-gamma (arXiv:2303.09556, section 3.4): the loss of x0 with its weight cut at `gamma`.

    min(SNR, gamma) on x0 is min(SNR, gamma) / SNR on the noise, and / (SNR + 1) on the velocity.

    Args:
        alphas_cumprod: abar_t of each sample's timestep, in (0, 1).
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return jnp.minimum(snr, gamma) / (snr if prediction == "epsilon" else snr + 1)


def clean_weight(
    alphas_cumprod: Float[np.ndarray, " T"], prediction: Prediction
) -> Float[np.ndarray, " T"]:
    """How much of the squared error of a prediction is that of the x0 that it implies.

    x0 has the noise's error by 1 / SNR, and the velocity's by 1 / (SNR + 1).

    Args:
        alphas_cumprod: abar_t, in (0, 1).
    """
    spread = 1 - alphas_cumprod
    return spread / alphas_cumprod if prediction == "epsilon" else spread


def noisy_latents(
    clean: Float[Array, "B h w C"],
    noise: Float[Array, "B h w C"],
    alphas_cumprod: Float[Array, " B"],
) -> Float[Array, "B h w C"]:
    """The forward process (arXiv:2006.11239, equation 4)."""
    signal, spread = _roots(alphas_cumprod)
    return signal * clean + spread * noise


def denoising_target(
    clean: Float[Array, "B h w C"],
    noise: Float[Array, "B h w C"],
    alphas_cumprod: Float[Array, " B"],
    prediction: Prediction,
) -> Float[Array, "B h w C"]:
    """What the network shall say: the noise, or v = sqrt(abar) noise - sqrt(1 - abar) clean."""
    if prediction == "epsilon":
        return noise
    signal, spread = _roots(alphas_cumprod)
    return signal * noise - spread * clean


def predicted_clean(
    latents: Float[Array, "B h w C"],
    output: Float[Array, "B h w C"],
    alphas_cumprod: Float[Array, " B"],
    prediction: Prediction,
) -> Float[Array, "B h w C"]:
    """x0 hat at the sample's own timestep: the inverse of the two functions above."""
    signal, spread = _roots(alphas_cumprod)
    if prediction == "epsilon":
        return (latents - spread * output) / signal
    return signal * latents - spread * output


def _roots(alphas_cumprod: Array) -> tuple[Array, Array]:
    """sqrt(abar), sqrt(1 - abar) as [B 1 1 1]."""
    column = alphas_cumprod[:, None, None, None]
    return jnp.sqrt(column), jnp.sqrt(1 - column)
