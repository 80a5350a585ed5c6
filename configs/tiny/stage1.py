"""The tiny model's stage 1: all instances of a composed page as one reference.

Reproduces: the second part of the embedded default model, trained on openly licensed art.
Command: magiccolor train tiny/stage1 --init runs/tiny/start --out runs/tiny/stage1
    --data.sources art:ART.npz --data.validation art-objects:ART.npz
Expected: 10 minutes on two CPU cores, a held-out loss of 0.355 (with AdamW, which the embedded
    model began with). scripts/tiny_start.py makes runs/tiny/start.
"""

from dataclasses import replace

from magiccolor_jax import tiny
from magiccolor_jax.data.loader import DataConfig
from magiccolor_jax.data.palette import PalettePlay
from magiccolor_jax.data.samples import Play
from magiccolor_jax.data.selfplay import SelfPlay
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.config import ReportConfig, SaveConfig
from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.stages import RANDOM, stage1

LOSSES = LossConfig(timesteps="clean", perceptual=0.0, color=0.0, draws=2)

# Other drawings of an instance are its references; a small model cannot spend itself on puzzles.
VIEWS = SelfPlay(
    crop=0.15,
    rotate=0.3,
    degrees=(-20.0, 20.0),
    rescale=0.3,
    warp=0.3,
    occlude=0.15,
    shuffle=0.1,
    jitter=0.1,
)

# The composer has recoloured each instance. Parts of pages show them at the scale that they have on
# a page twice as large.
PLAY = Play(
    views=1.0,
    zoom=(0.5, 1.0),
    views_play=VIEWS,
    selfplay=VIEWS,
    palette=PalettePlay(probability=0.0),
)

CONFIG = {
    "stage": replace(stage1(), origins=RANDOM, encoder=True, losses=LOSSES),
    "recipe": tiny.RECIPE,
    "page": 128,
    "data": DataConfig(play=PLAY, threads=2),
    "batch": 16,
    "steps": 500,
    "optim": OptimConfig(kind="muon", lr=1e-3, warmup=100, weight_decay=1e-2),
    "average": 0.999,
    "remat": "off",
    "save": SaveConfig(every=500, keep=2),
    "report": ReportConfig(preview_steps=12, previews=8, guidance=1.5, validation_batches=8),
}
