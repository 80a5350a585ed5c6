"""The tiny model's autoencoder: 256 px pages of composed drawings -> 32 x 32 latents.

Reproduces: the first part of the embedded default model, trained on openly licensed art.
Command: magiccolor train tiny/autoencoder --out runs/tiny/autoencoder --sources art:ART.npz
Expected: 20 minutes on two CPU cores; held-out pages come back with an Oklab error of 4.4, at
    26.5 dB.
"""

from magiccolor_jax import tiny

CONFIG = {
    "network": tiny.AUTOENCODER,
    "page": tiny.SIZES.page,
    "crop": 128,
    "batch": 6,
    "kl": 1e-3,
    "slope": 0.1,
    "steps": 3000,
}
