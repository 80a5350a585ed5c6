"""Similarity of whole pictures, and every page once more with two references exchanged.

Reproduces: the numbers of MangaNinja's comparison (arXiv:2501.08332: DINO, CLIP, PSNR, MS-SSIM,
LPIPS), with a swap test.
Command: magiccolor evaluate --protocol swapped --networks NETWORKS MODEL --cases CASES
    --model MODEL --out REPORT
Expected: a swap test near 1 where references are followed, near 0 where they are not.
"""

from magiccolor_jax.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="swapped",
    metrics=("dino", "clip", "psnr", "ms_ssim", "lpips_alex", "own_closest", "swapped"),
    size=512,
)
