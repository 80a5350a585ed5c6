"""Stage 1: one reference; denoiser, reference UNet and sketch guider (paper, §3.3).

Reproduces: the first stage of MagicColor (arXiv:2503.16948) from Stable Diffusion 1.5 and the
line-art ControlNet, with the losses of the paper's text.
Command: magiccolor train stage1 --init MODEL --out runs/stage1 --data.sources triplets:ATD-12K
Expected: the paper trains both stages for 100 000 steps of 2 samples on 2 A800, about 7 days; it
prints no loss.
"""

from magiccolor_jax.training.optim import OptimConfig
from magiccolor_jax.training.stages import stage1

CONFIG = {
    "stage": stage1(),
    "batch": 2,
    "steps": 100_000,
    "optim": OptimConfig(lr=2e-5, warmup=10, weight_decay=1e-2, clip=1.0),
}
