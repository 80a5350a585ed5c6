"""Line extraction: a coloured picture -> its line art. Extractors plug in by name."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from magiccolor_jax.lineart.xdog import xdog

Extractor = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W"]]
"""RGB, 0..255 -> lines of the same size, 0 = ink, 255 = paper."""

EXTRACTORS: dict[str, Extractor] = {"xdog": xdog}
"""By the name that configs use. Networks need weights, and plug in with them:
`EXTRACTORS["anime2sketch"] = prepare.extracting.load_extractor("anime2sketch", folder)`."""
