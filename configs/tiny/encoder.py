"""The tiny model's reference encoder: which parts of two views of a drawing are the same.

Reproduces: an alternative to training the encoder along with the stages.
Command: magiccolor train tiny/encoder --out runs/tiny/encoder --sources art:ART.npz
    --validation art-objects:ART.npz
Expected: 32 minutes on two CPU cores beside another training; of a held-out drawing's patches 57 %
    find their own in the other view, and 77 % find it or one beside it. scripts/tiny_start.py
    takes its model by --encoder; left as it is, it serves the stages worse than one that is
    trained along (docs/training.md).
"""

from magiccolor_jax import tiny
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.training.optim import OptimConfig

CONFIG = {
    "encoder": tiny.ENCODER,
    "views": SelfPlay(occlude=0.2, shuffle=0.0),
    "batch": 32,
    "steps": 1500,
    "preview_every": 500,
    "optim": OptimConfig(lr=1e-3, warmup=100, schedule="cosine", weight_decay=1e-2),
}
