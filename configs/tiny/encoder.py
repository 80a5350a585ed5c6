"""The tiny model's reference encoder: which parts of two views of a drawing are the same.

Reproduces: an alternative to training the encoder along with the stages.
Command: magiccolor train tiny/encoder --out runs/tiny/encoder --sources art:ART.npz
    --validation art-objects:ART.npz
Expected: not measured yet. scripts/tiny_start.py takes its model by --encoder.
"""

from magiccolor_jax import tiny
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.training.optim import OptimConfig

CONFIG = {
    "encoder": tiny.ENCODER,
    "views": SelfPlay(occlude=0.2, shuffle=0.0),
    "batch": 32,
    "steps": 3000,
    "preview_every": 500,
    "optim": OptimConfig(lr=1e-3, warmup=100, schedule="cosine", weight_decay=1e-2),
}
