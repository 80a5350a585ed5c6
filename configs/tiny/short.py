"""The tiny model's stage 2 from random weights, with all losses: short enough to repeat.

Reproduces: the paper's ablations at this scale, and the choice of the reference encoder; a table
of docs/training.md.
Command: magiccolor train tiny/short --init runs/tiny/start --out runs/tiny/short
    --data.sources art:ART.npz --data.validation art-objects:ART.npz
    The ablations add --stage.losses.no-edge, --stage.losses.color 0 or --stage.no-instance-guider;
    --stage.no-encoder leaves the reference encoder as it is in runs/tiny/start. To go on from the
    embedded model: --steps 160, --init magiccolor_jax/assets/models/tiny, and --stage.origins with
    each of denoiser, reference, sketch_guider, instance_guider, context and dinov2 twice.
Expected: a held-out denoising loss of 0.437 after 240 steps, 10 minutes on two idle CPU cores
    beside 5 of compiling; without the instance guider 0.495.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from magiccolor_jax.training.stages import RANDOM

WHOLE = runpy.run_path(str(Path(__file__).with_name("whole.py")))["CONFIG"]
BEFORE = runpy.run_path(str(Path(__file__).with_name("stage2.py")))["CONFIG"]

CONFIG = BEFORE | {
    "stage": replace(WHOLE["stage"], origins=RANDOM, instances=4),
    "steps": 240,
    "optim": WHOLE["optim"],
    "save": replace(BEFORE["save"], every=120),
    "report": replace(BEFORE["report"], every=20),
}
