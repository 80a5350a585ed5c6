"""The tiny model's stage 2: up to five instances, each from its own reference, on small pages.

Reproduces: the third part of the embedded default model, trained on openly licensed art.
Command: magiccolor train tiny/stage2 --init runs/tiny/stage1 --out runs/tiny/stage2
    --data.sources art:ART.npz --data.validation art-objects:ART.npz
Expected: the embedded model left it for tiny/whole after 3586 steps, 2.5 hours on two CPU cores: a
    held-out loss of 0.123 after 2500 steps, with AdamW, and of 0.100 after 1000 more with Muon. It
    came back (--init runs/tiny/whole) for 6480 more, 3.5 hours: 0.086 after 1800, 0.074 at the end,
    and still falling.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from magiccolor_jax.training.stages import stage2

FIRST = runpy.run_path(str(Path(__file__).with_name("stage1.py")))

CONFIG = FIRST["CONFIG"] | {
    "stage": replace(stage2(), encoder=True, losses=FIRST["LOSSES"], instances=5),
    "steps": 40_000,
}
