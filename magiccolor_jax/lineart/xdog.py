"""XDoG: lines as the soft threshold of a sharpened picture.

Winnemoeller, Kyprianidis, Olsen: XDoG: An eXtended difference-of-Gaussians compendium including
advanced image stylization, Computers & Graphics 36 (2012): equations 5 to 7.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

NOMINAL_SIDE = 512
"""Side of the square picture that `sigma` is given for."""

RADIUS = 4
"""Half width of a Gaussian's kernel, in deviations."""


@dataclass(frozen=True, kw_only=True)
class XDoG:
    """The operator's parameters; the defaults draw thin lines and leave dark colours white."""

    sigma: float = 0.7
    """Deviation of the narrow Gaussian, in pixels of a 512 x 512 picture; it grows with the root of
    the picture's area, and the lines' width with it."""
    ratio: float = 1.6
    """Deviation of the wide Gaussian over that of the narrow one; above 1 (k in the paper)."""
    sharpness: float = 20.0
    """How strongly edges are brought out, at least 0 (p in the paper)."""
    threshold: float = 0.1
    """Sharpened luminance, 0..1, from which on all is white: a plain area darker than this becomes
    ink as a whole (epsilon in the paper)."""
    steepness: float = 20.0
    """How fast ink darkens below the threshold, above 0 (phi in the paper)."""

    def __post_init__(self):
        rules = {
            "sigma": self.sigma > 0,
            "ratio": self.ratio > 1,
            "sharpness": self.sharpness >= 0,
            "threshold": 0 <= self.threshold <= 1,
            "steepness": self.steepness > 0,
        }
        for name, holds in rules.items():
            value = getattr(self, name)
            if not (holds and math.isfinite(value)):
                raise ValueError(
                    f"XDoG.{name}: expected a finite sigma > 0, ratio > 1, sharpness >= 0, "
                    f"threshold in [0, 1], steepness > 0; got {value}"
                )


def xdog(
    picture: UInt8[np.ndarray, "H W 3"], config: XDoG | None = None
) -> UInt8[np.ndarray, "H W"]:
    """Extracts lines on the dark sides of a picture's edges.

    Args:
        picture: RGB, 0..255.
        config: None: the defaults.

    Returns:
        0 = ink, 255 = paper.
    """
    config = config or XDoG()
    luminance = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    sigma = config.sigma * math.sqrt(luminance.size) / NOMINAL_SIDE
    narrow, wide = _blur(luminance, sigma), _blur(luminance, sigma * config.ratio)
    sharpened = (1 + config.sharpness) * narrow - config.sharpness * wide  # equation 7
    below = np.minimum(sharpened - config.threshold, 0)
    tone = 1 + np.tanh(config.steepness * below)  # equation 5
    return np.rint(tone * 255).astype(np.uint8)


def _blur(luminance: Float[np.ndarray, "H W"], sigma: float) -> Float[np.ndarray, "H W"]:
    """A Gaussian blur; the picture is mirrored about its outermost pixels' edges."""
    side = 2 * math.ceil(RADIUS * sigma) + 1
    return cv2.GaussianBlur(luminance, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
