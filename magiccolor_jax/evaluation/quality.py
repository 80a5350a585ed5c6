"""How near a picture is to the truth: PSNR, SSIM (Wang et al. 2004), MS-SSIM (Wang et al. 2003).

All take pictures in [0, 1], compute in float32 and give a number per picture. Where a mask is
given, only its pixels count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01**2, 0.03**2
"""C1 and C2 of SSIM, at a range of 1."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, finest first (Wang et al. 2003, section 3.2)."""


class Window(NamedTuple):
    """The neighbourhood of a pixel that SSIM compares."""

    taps: tuple[float, ...]
    """Relative weights along one axis."""
    sample: bool
    """Divide variances by the number of pixels less one."""


def gaussian_window(sigma: float = 1.5, radius: int = 5) -> Window:
    """As in the original work."""
    taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return Window(tuple(taps.tolist()), sample=False)


def uniform_window(side: int = 7) -> Window:
    """As scikit-image's default."""
    return Window((1.0,) * side, sample=True)


def psnr(
    made: Float[Array, "B H W C"],
    truth: Float[Array, "B H W C"],
    mask: Bool[Array, "B H W"] | None = None,
) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio in decibels, infinite where nothing differs; nan of no pixel."""
    error = jnp.square(made.astype(jnp.float32) - truth.astype(jnp.float32))
    return -10 * jnp.log10(_mean_over(error, mask))


def ssim(
    made: Float[Array, "B H W C"],
    truth: Float[Array, "B H W C"],
    window: Window,
    mask: Bool[Array, "B H W"] | None = None,
) -> Float[Array, "B"]:
    """Mean structural similarity, 1 at most; of the pixels whose window lies in the picture.

    nan where the mask has no such pixel.

    Raises:
        ValueError: the picture is smaller than the window.
    """
    whole, _ = similarity_maps(made, truth, window)
    margin = len(window.taps) // 2
    height, width = whole.shape[1:3]
    if mask is not None:
        mask = mask[:, margin : margin + height, margin : margin + width]
    return _mean_over(whole, mask)


def ms_ssim(made: Float[Array, "B H W C"], truth: Float[Array, "B H W C"]) -> Float[Array, "B"]:
    """Structural similarity over five scales, each half of the one before.

    Channels are averaged last, and a negative mean of a scale counts as 0, as in the field's
    PyTorch implementation (pytorch-msssim).

    Raises:
        ValueError: the coarsest scale is smaller than the window: a side is below 161.
    """
    window = gaussian_window()
    least = (len(window.taps) - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
    if min(made.shape[1:3]) < least:
        raise ValueError(
            f"MS-SSIM halves a picture {len(SCALE_WEIGHTS) - 1} times: expected sides of at least "
            f"{least} px, got {made.shape[1]} x {made.shape[2]}; use SSIM, or larger pictures"
        )
    product = jnp.ones((made.shape[0], made.shape[3]))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, contrast = similarity_maps(made, truth, window)
        last = scale == len(SCALE_WEIGHTS) - 1
        mean = jnp.mean(whole if last else contrast, axis=(1, 2))
        product *= jax.nn.relu(mean) ** weight
        made, truth = _halved(made), _halved(truth)
    return product.mean(axis=1)


def similarity_maps(
    made: Float[Array, "B H W C"], truth: Float[Array, "B H W C"], window: Window
) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
    """Structural similarity of every window that lies in the picture, and its contrast term.

    Raises:
        ValueError: the picture is smaller than the window.
    """
    side = len(window.taps)
    if min(made.shape[1:3]) < side:
        raise ValueError(
            f"SSIM compares windows of {side} x {side} pixels: expected a picture of at least "
            f"that size, got {made.shape[1]} x {made.shape[2]}"
        )
    # Variances do not depend on where zero is; around the middle less is lost to rounding.
    x, y = made.astype(jnp.float32) - 0.5, truth.astype(jnp.float32) - 0.5
    sums = _windowed(jnp.stack([x, y, x * x, y * y, x * y]), window)
    x, y, xx, yy, xy = sums
    unbiased = side**2 / (side**2 - 1) if window.sample else 1.0
    variances = unbiased * (xx - x * x + yy - y * y)
    covariance = unbiased * (xy - x * y)
    x, y = x + 0.5, y + 0.5
    contrast = (2 * covariance + CONTRAST_CONSTANT) / (variances + CONTRAST_CONSTANT)
    luminance = (2 * x * y + LUMINANCE_CONSTANT) / (x * x + y * y + LUMINANCE_CONSTANT)
    return luminance * contrast, contrast


def _windowed(values: Float[Array, "N B H W C"], window: Window) -> Float[Array, "N B h w C"]:
    """Weighted means over windows; shifted copies add up faster than a convolution of few taps."""
    for axis in (2, 3):
        length = values.shape[axis] - len(window.taps) + 1
        shifted = [
            tap * jax.lax.slice_in_dim(values, start, start + length, axis=axis)
            for start, tap in enumerate(window.taps)
        ]
        values = sum(shifted[1:], start=shifted[0])
    return values / sum(window.taps) ** 2


def _halved(pixels: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Means of 2 x 2 pixels; an odd side is padded by zeros at both ends."""
    odd = [(side % 2,) * 2 for side in pixels.shape[1:3]]
    pixels = jnp.pad(pixels, ((0, 0), *odd, (0, 0)))
    count, height, width, channels = pixels.shape
    pixels = pixels[:, : height // 2 * 2, : width // 2 * 2]
    return pixels.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _mean_over(
    values: Float[Array, "B H W C"], mask: Bool[Array, "B H W"] | None
) -> Float[Array, "B"]:
    """Mean over the pixels of a mask, or over all."""
    if mask is None:
        return values.mean(axis=(1, 2, 3))
    kept = jnp.where(mask[..., None], values, 0).sum(axis=(1, 2, 3))
    return kept / (mask.sum(axis=(1, 2)) * values.shape[-1])
