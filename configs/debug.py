"""A few steps of stage 2 on a small model folder: does everything hang together?

Reproduces: nothing.
Command: magiccolor train debug --init NANO_MODEL --out /tmp/debug
    --data.sources cases:magiccolor_jax/assets/cases
    NANO_MODEL is made by `python scripts/make_release_checkpoint.py --out ckpt --size nano` and
    `magiccolor convert ckpt NANO_MODEL`.
Expected: 4 steps, one checkpoint, one preview; minutes on a laptop, most of them compiling.
"""

from dataclasses import replace

from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.config import ReportConfig, SaveConfig
from magiccolor_jax.training.stages import RANDOM, stage2

CONFIG = {
    "stage": replace(stage2(), origins=RANDOM, losses=LossConfig(perceptual=0.0, picture_crop=64)),
    "batch": 1,
    "steps": 4,
    "average": None,
    "remat": "off",
    "save": SaveConfig(every=2, keep=1),
    "report": ReportConfig(every=1, preview_every=4, previews=1, preview_steps=4),
}
