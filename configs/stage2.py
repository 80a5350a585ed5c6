"""Stage 2: up to ten references; adds the instance guider and its adapter (paper, §3.3).

Reproduces: the second stage of MagicColor (arXiv:2503.16948), going on from stage 1's checkpoint.
Command: magiccolor train stage2 --init runs/stage1 --out runs/stage2
    --data.sources release:ANIMATION records:SHARDS
Expected: see stage1; the paper does not say how the 100 000 steps are shared out.
"""

from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.stages import stage2

CONFIG = {
    "stage": stage2(),
    "batch": 2,
    "steps": 100_000,
    "optim": OptimConfig(lr=2e-5, warmup=10, weight_decay=1e-2, clip=1.0),
}
