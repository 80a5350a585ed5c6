"""VGG-19 features (arXiv:1409.1556), under torchvision's names (`models/vgg.py`, layout E)."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from magiccolor_jax.nn.remat import Remat, call

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

DEPTHS = (2, 2, 4, 4, 4)
"""Convolutions per block; each is followed by a ReLU, each block by a 2x2 max pool."""

BLOCK_STARTS = (0, *accumulate(2 * depth + 1 for depth in DEPTHS[:-1]))
"""torchvision's index of each block's first convolution: 0, 5, 10, 19, 28."""

LAYERS = {
    f"relu{block}_{i + 1}": (block, start + 2 * i)
    for block, (start, depth) in enumerate(zip(BLOCK_STARTS, DEPTHS, strict=True), 1)
    for i in range(depth)
}
"""Activation -> its block, 1..5, and torchvision's index of its convolution."""


@dataclass(frozen=True, kw_only=True)
class VGG19Config:
    """Which activations to return; the sizes are the paper's."""

    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    """Activations to return, `relu{block}_{convolution}`, in the network's order."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each block."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; the input is normalised in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""
    remat: Remat = "off"
    """Recompute each block in the backward pass."""

    def __post_init__(self):
        if not self.layers or list(self.layers) != [n for n in LAYERS if n in self.layers]:
            raise ValueError(
                f"VGG19Config: layers must be some of {tuple(LAYERS)}, in this order, "
                f"got {self.layers}"
            )
        if len(self.widths) != len(DEPTHS) or min(self.widths) < 1:
            raise ValueError(
                f"VGG19Config: widths must be {len(DEPTHS)} positive numbers, got {self.widths}"
            )

    @classmethod
    def vgg19(cls, **overrides: Any) -> "VGG19Config":
        """torchvision's vgg19 (20.0 M parameters without the classifier)."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "VGG19Config":
        """Test-sized."""
        sizes: dict[str, Any] = {"widths": (4, 6, 8, 10, 12)}
        return cls(**(sizes | overrides))

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


class VGG19(nnx.Module):
    """Picture -> activations after the chosen ReLUs; the classifier does not exist."""

    def __init__(self, cfg: VGG19Config, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.features = nnx.Dict()
        inputs = 3
        for block, index in LAYERS.values():
            width = cfg.widths[block - 1]
            self.features[str(index)] = nnx.Conv(
                inputs, width, (3, 3), padding=1, rngs=rngs, **cfg.kinds
            )
            inputs = width

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B _ _ _"], ...]:
        """One activation per name in `layers`; a layer of block b has 1 / 2^(b-1) of the size.

        Args:
            pixels: RGB in [0, 1]; ImageNet's mean and deviation are applied here.

        Raises:
            ValueError: the picture is too small to reach the last layer.
        """
        last = self.cfg.layers[-1]
        smallest = 2 ** (LAYERS[last][0] - 1)
        if min(pixels.shape[1:3]) < smallest:
            raise ValueError(
                f"VGG19: {last} needs sides of at least {smallest} pixels, "
                f"got {pixels.shape[1]} x {pixels.shape[2]}"
            )
        x = (pixels.astype(jnp.float32) - IMAGENET_MEAN) / IMAGENET_STD
        names = list(LAYERS)[: list(LAYERS).index(last) + 1]
        found = {}
        for block, members in groupby(names, key=lambda name: LAYERS[name][0]):
            if block > 1:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2), padding="VALID")
            group = tuple(members)
            found |= call(partial(self._block, group), self.cfg.remat, x)
            x = found[group[-1]]
        return tuple(found[name] for name in self.cfg.layers)

    def _block(self, names: tuple[str, ...], x: Array) -> dict[str, Array]:
        """The named activations of one block, each made from the one before."""
        made = {}
        for name in names:
            x = made[name] = nnx.relu(self.features[str(LAYERS[name][1])](x))
        return made
