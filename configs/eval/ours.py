"""Colour by instance, without pretrained networks: what this project looks at first.

Reproduces: nothing; every number is computed from pixels.
Command: magiccolor evaluate --protocol ours --cases CASES --pred DIR --out REPORT
Expected: a second per case on a laptop.
"""

from magiccolor_jax.evaluation.metrics import COLOR, REGION
from magiccolor_jax.evaluation.protocol import Protocol

PROTOCOL = Protocol(name="ours", metrics=("psnr", "ssim", *REGION, *COLOR), size=None)
