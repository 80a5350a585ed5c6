"""The tiny model's stage 2 goes on at its whole page, and comes to rest.

Reproduces: the last part of the embedded default model, trained on openly licensed art.
Command: magiccolor train tiny/whole --init runs/tiny/stage2 --out runs/tiny/whole
    --data.sources art:ART.npz --data.validation art-objects:ART.npz
Expected: not measured yet.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from magiccolor_jax import tiny

BEFORE = runpy.run_path(str(Path(__file__).with_name("stage2.py")))["CONFIG"]

CONFIG = BEFORE | {
    "page": tiny.SIZES.page,
    "steps": 4000,
    "optim": replace(BEFORE["optim"], lr=5e-4, schedule="cosine"),
}
