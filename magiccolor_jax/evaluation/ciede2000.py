"""CIEDE2000, the distance between colours (CIE 142-2001; Sharma, Wu and Dalal 2005).

About 1 is just noticeable, black and white are 100 apart.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

XYZ_OF_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ],
    np.float32,
)
"""Linear sRGB -> CIE XYZ (ITU-R BT.709 primaries)."""

WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)
"""D65, seen at 2 degrees."""

SEVENTH = 25.0**7
"""Chroma 25: where greys begin, in the seventh power of the formula."""


def srgb_to_lab(pixels: Float[Array, "*S 3"]) -> Float[Array, "*S 3"]:
    """CIE L*a*b* of sRGB colours in [0, 1]: L* in [0, 100]."""
    pixels = pixels.astype(jnp.float32)
    linear = jnp.where(pixels > 0.04045, ((pixels + 0.055) / 1.055) ** 2.4, pixels / 12.92)
    xyz = jnp.einsum("...i,ji->...j", linear, XYZ_OF_RGB, precision="highest") / WHITE
    # The line goes on from the cube root where that is too steep for black.
    x, y, z = jnp.moveaxis(jnp.where(xyz > 0.008856, jnp.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(lab: Float[Array, "*S 3"], other: Float[Array, "*S 3"]) -> Float[Array, "*S"]:
    """Distance of CIE L*a*b* colours; the names are the formula's."""
    (l1, a1, b1), (l2, a2, b2) = jnp.moveaxis(lab, -1, 0), jnp.moveaxis(other, -1, 0)
    stretch = 1 + 0.5 * (1 - _saturation((jnp.hypot(a1, b1) + jnp.hypot(a2, b2)) / 2))
    (c1, h1), (c2, h2) = _polar(stretch * a1, b1), _polar(stretch * a2, b2)
    lightness, chroma, hue = (l1 + l2) / 2, (c1 + c2) / 2, _mean_hue(h1, h2, c1 * c2)
    turn = (h2 - h1 + math.pi) % (2 * math.pi) - math.pi
    weight = (
        1
        - 0.17 * jnp.cos(hue - math.radians(30))
        + 0.24 * jnp.cos(2 * hue)
        + 0.32 * jnp.cos(3 * hue + math.radians(6))
        - 0.20 * jnp.cos(4 * hue - math.radians(63))
    )
    off = jnp.square(lightness - 50)
    dl = (l2 - l1) / (1 + 0.015 * off / jnp.sqrt(20 + off))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * jnp.sqrt(c1 * c2) * jnp.sin(turn / 2) / (1 + 0.015 * chroma * weight)
    blue = jnp.exp(-jnp.square((jnp.degrees(hue) - 275) / 25))
    rotation = -2 * _saturation(chroma) * jnp.sin(math.radians(60) * blue)
    return jnp.sqrt(jnp.maximum(dl * dl + dc * dc + dh * dh + rotation * dc * dh, 0))


def _saturation(chroma: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """0 for greys, 1 for vivid colours."""
    return jnp.sqrt(chroma**7 / (chroma**7 + SEVENTH))


def _polar(a: Float[Array, "*S"], b: Float[Array, "*S"]) -> tuple[Array, Array]:
    """Chroma, and hue in [0, 2 pi)."""
    return jnp.hypot(a, b), jnp.arctan2(b, a) % (2 * math.pi)


def _mean_hue(
    h1: Float[Array, "*S"], h2: Float[Array, "*S"], chroma: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """The middle of the shorter arc; the other's hue where one is grey (`chroma` 0)."""
    far = jnp.abs(h1 - h2) > math.pi
    total = h1 + h2
    around = jnp.where(total < 2 * math.pi, 2 * math.pi, -2 * math.pi)
    return jnp.where(chroma == 0, total, (total + jnp.where(far, around, 0)) / 2)
