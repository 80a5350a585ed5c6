"""The four numbers of the paper's comparison: PSNR, SSIM, LPIPS, FID at 512 px.

Reproduces: arXiv:2503.16948, table 1 (1000 pairs), on the cases that are given.
Command: magiccolor evaluate --protocol paper --networks NETWORKS --cases CASES --pred DIR
    --out REPORT
Expected: the table's numbers for the released weights on its own test set, which is not public.
"""

from magiccolor_jax.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="paper", metrics=("psnr", "ssim", "lpips_alex"), size=512, fid=True, cases=1000
)
