"""The tiny model's stage 2 goes on at its whole page with all losses, and comes to rest.

Reproduces: the last part of the embedded default model, trained on openly licensed art.
Command: magiccolor train tiny/whole --init runs/tiny/stage2 --out runs/tiny/whole
    --data.sources art:ART.npz --data.validation art-objects:ART.npz
Expected: 26 to 34 minutes on two CPU cores, and six to compile; a held-out denoising loss of
    0.0669 the first time, and of 0.0466 after more of stage 2; the numbers of
    magiccolor_jax/assets/models/tiny/README.md.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from magiccolor_jax import tiny

BEFORE = runpy.run_path(str(Path(__file__).with_name("stage2.py")))["CONFIG"]

# The terms that look at pictures cost a fifth of a step; they are for the last touches.
LOSSES = replace(
    BEFORE["stage"].losses,
    perceptual=0.1,
    perceptual_network="autoencoder",
    color=0.1,
    picture_crop=128,
)

CONFIG = BEFORE | {
    "stage": replace(BEFORE["stage"], losses=LOSSES),
    "page": tiny.SIZES.page,
    "data": replace(BEFORE["data"], play=replace(BEFORE["data"].play, zoom=(0.8, 1.0))),
    "batch": 8,
    "steps": 560,
    "optim": replace(BEFORE["optim"], warmup=20, schedule="cosine"),
    "save": replace(BEFORE["save"], every=140),
    "report": replace(BEFORE["report"], every=20),
}
