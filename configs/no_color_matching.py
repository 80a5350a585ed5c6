"""Stage 2 without colour matching.

Reproduces: the paper's ablation 'w/o colour matching'.
Command: magiccolor train no_color_matching --init runs/stage1 --out runs/no_color_matching
    --data.sources records:SHARDS
Expected: worse than stage2 on the same data, as in the paper's ablation.
"""

from dataclasses import replace

from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.stages import stage2

CONFIG = {"stage": replace(stage2(), name="no_color_matching", losses=LossConfig(color=0.0))}
