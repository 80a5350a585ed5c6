"""Stage 2 without the instance guider.

Reproduces: the paper's ablation 'w/o instance guider'; references reach the page by the reference
UNet and the context alone.
Command: magiccolor train no_instance_guider --init runs/stage1 --out runs/no_instance_guider
    --data.sources records:SHARDS
Expected: worse than stage2 on the same data, most where several instances stand on a page.
"""

from dataclasses import replace

from magiccolor_jax.training.stages import stage1, stage2

CONFIG = {
    "stage": replace(
        stage2(),
        name="no_instance_guider",
        instance_guider=False,
        trainable=stage1().trainable,
    )
}
