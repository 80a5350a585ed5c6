"""Stage 2 without the edge loss.

Reproduces: the paper's ablation 'w/o edge loss'.
Command: magiccolor train no_edge --init runs/stage1 --out runs/no_edge
    --data.sources records:SHARDS
Expected: worse than stage2 on the same data, as in the paper's ablation.
"""

from dataclasses import replace

from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.training.stages import stage2

CONFIG = {"stage": replace(stage2(), name="no_edge", losses=LossConfig(edge=False))}
