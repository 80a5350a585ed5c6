"""The Inception-v3 (arXiv:1512.00567) by whose features FID is measured, under PyTorch's names.

It is the network of TensorFlow's `inception-2015-12-05`, as pytorch-fid's weights file
`pt_inception-2015-12-05-6726825d.pth` holds it. It differs from torchvision's in its pools: an
average leaves padding out, and the last block takes a maximum.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from magiccolor_jax.nn.normalisation import FrozenBatchNorm

SIDE = 299
"""The network sees squares of this many pixels."""

WIDTH_UNIT = 16
"""Every number of channels is a multiple of this."""

Pool = Literal["mean", "max", "halve"]
"""3x3: a mean or a maximum of the same size, or a maximum of half the size."""


class Layer(NamedTuple):
    """One convolution with its normalisation and ReLU."""

    name: str
    width: int
    """Channels that it makes."""
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"


class Block(NamedTuple):
    """Branches side by side, concatenated; layers of one name are one layer."""

    name: str
    branches: tuple[tuple[Layer, ...], ...]
    pool: Pool
    """The last branch."""
    pooled: int = 0
    """Channels of the convolution after the pool, `branch_pool`; 0: there is none."""


STEM = (
    (
        Layer("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
        Layer("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
        Layer("Conv2d_2b_3x3", 64, (3, 3)),
    ),
    (Layer("Conv2d_3b_1x1", 80), Layer("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID")),
)
"""Groups of layers, each followed by a pool that halves."""


def _block_a(name: str, pooled: int) -> Block:
    """At 35 x 35."""
    branches = (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3)),
        ),
    )
    return Block(name, branches, "mean", pooled)


def _block_b(name: str) -> Block:
    """From 35 x 35 to 17 x 17."""
    branches = (
        (Layer("branch3x3", 384, (3, 3), 2, "VALID"),),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        ),
    )
    return Block(name, branches, "halve")


def _block_c(name: str, inner: int) -> Block:
    """At 17 x 17; `inner` channels between its long windows."""
    branches = (
        (Layer("branch1x1", 192),),
        (
            Layer("branch7x7_1", inner),
            Layer("branch7x7_2", inner, (1, 7)),
            Layer("branch7x7_3", 192, (7, 1)),
        ),
        (
            Layer("branch7x7dbl_1", inner),
            Layer("branch7x7dbl_2", inner, (7, 1)),
            Layer("branch7x7dbl_3", inner, (1, 7)),
            Layer("branch7x7dbl_4", inner, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
    )
    return Block(name, branches, "mean", 192)


def _block_d(name: str) -> Block:
    """From 17 x 17 to 8 x 8."""
    branches = (
        (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2, "VALID")),
        (
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        ),
    )
    return Block(name, branches, "halve")


def _block_e(name: str, pool: Pool) -> Block:
    """At 8 x 8; two of its branches fork at their ends."""
    single = (Layer("branch3x3_1", 384),)
    double = (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3)))
    branches = (
        (Layer("branch1x1", 320),),
        (*single, Layer("branch3x3_2a", 384, (1, 3))),
        (*single, Layer("branch3x3_2b", 384, (3, 1))),
        (*double, Layer("branch3x3dbl_3a", 384, (1, 3))),
        (*double, Layer("branch3x3dbl_3b", 384, (3, 1))),
    )
    return Block(name, branches, pool, 192)


BLOCKS = (
    _block_a("Mixed_5b", 32),
    _block_a("Mixed_5c", 64),
    _block_a("Mixed_5d", 64),
    _block_b("Mixed_6a"),
    _block_c("Mixed_6b", 128),
    _block_c("Mixed_6c", 160),
    _block_c("Mixed_6d", 160),
    _block_c("Mixed_6e", 192),
    _block_d("Mixed_7a"),
    _block_e("Mixed_7b", "mean"),
    # The maximum stands in TensorFlow's graph, not in the paper (pytorch-fid's FIDInceptionE_2).
    _block_e("Mixed_7c", "max"),
)


@dataclass(frozen=True, kw_only=True)
class InceptionConfig:
    """How wide the network is; its layers are those of FID."""

    divide: int = 1
    """Every number of channels is divided by this: 1 for FID, at most 16."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; resizing, normalisations and the last mean are in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        if self.divide < 1 or WIDTH_UNIT % self.divide:
            raise ValueError(
                f"InceptionConfig: divide must be a divisor of {WIDTH_UNIT}, got {self.divide}"
            )

    @classmethod
    def fid(cls, **overrides: Any) -> "InceptionConfig":
        """TensorFlow's network of FID (21.8 M parameters without the classifier)."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "InceptionConfig":
        """Test-sized."""
        sizes: dict[str, Any] = {"divide": WIDTH_UNIT}
        return cls(**(sizes | overrides))

    @property
    def features(self) -> int:
        """Numbers per picture: 2048 for FID."""
        return 2048 // self.divide

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


class ConvNorm(nnx.Module):
    """Convolution without bias, normalisation, ReLU."""

    def __init__(self, layer: Layer, inputs: int, cfg: InceptionConfig, *, rngs: nnx.Rngs):
        self.width = layer.width // cfg.divide
        self.conv = nnx.Conv(
            inputs,
            self.width,
            layer.window,
            strides=layer.stride,
            padding=layer.padding,
            use_bias=False,
            precision="highest",  # a yardstick must not change with the device
            rngs=rngs,
            **cfg.kinds,
        )
        self.bn = FrozenBatchNorm(self.width, cfg.param_dtype)

    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B _ _ O"]:
        """Any range -> not negative."""
        return nnx.relu(self.bn(self.conv(x)))


class Mixed(nnx.Module):
    """The branches of one block."""

    def __init__(self, plan: Block, inputs: int, cfg: InceptionConfig, *, rngs: nnx.Rngs):
        self.plan = plan
        self.width = 0
        for branch in plan.branches:
            width = inputs
            for layer in branch:
                if not hasattr(self, layer.name):
                    setattr(self, layer.name, ConvNorm(layer, width, cfg, rngs=rngs))
                width = getattr(self, layer.name).width
            self.width += width
        if plan.pooled:
            layer = Layer("branch_pool", plan.pooled)
            self.branch_pool = ConvNorm(layer, inputs, cfg, rngs=rngs)
        self.width += self.branch_pool.width if plan.pooled else inputs

    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B _ _ O"]:
        """As large as `x`, or half as large where the plan pools so."""
        made, ends = {}, []
        for branch in self.plan.branches:
            y = x
            for layer in branch:
                if layer.name not in made:
                    made[layer.name] = getattr(self, layer.name)(y)
                y = made[layer.name]
            ends.append(y)
        pooled = pool(x, self.plan.pool)
        ends.append(self.branch_pool(pooled) if self.plan.pooled else pooled)
        return jnp.concatenate(ends, axis=-1)


class Inception(nnx.Module):
    """Picture -> the features before the classifier, which does not exist."""

    def __init__(self, cfg: InceptionConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        width = 3
        for layer in chain(*STEM):
            setattr(self, layer.name, ConvNorm(layer, width, cfg, rngs=rngs))
            width = getattr(self, layer.name).width
        for plan in BLOCKS:
            setattr(self, plan.name, Mixed(plan, width, cfg, rngs=rngs))
            width = getattr(self, plan.name).width

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B F"]:
        """Features, F = `features`, in f32.

        Args:
            pixels: RGB in [0, 1], of any size; resized here to 299 x 299, without its shape.
        """
        x = resize(pixels.astype(jnp.float32), (SIDE, SIDE))
        x = (2 * x - 1).astype(self.cfg.dtype)
        for group in STEM:
            for layer in group:
                x = getattr(self, layer.name)(x)
            x = pool(x, "halve")
        for plan in BLOCKS:
            x = getattr(self, plan.name)(x)
        return x.astype(jnp.float32).mean((1, 2))  # [B 8 8 F] -> [B F]


def resize(pixels: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B _ _ C"]:
    """Bilinear between the two nearest pixels, however much smaller the result (pytorch-fid).

    PyTorch's `interpolate` without aligned corners: pixel centres at halves, edges repeated.

    Args:
        pixels: of any range, which is kept.
        size: height and width to give.
    """
    shape = (pixels.shape[0], *size, pixels.shape[3])
    return jax.image.resize(pixels, shape, "bilinear", antialias=False)


def pool(x: Float[Array, "B h w C"], kind: Pool) -> Float[Array, "B _ _ C"]:
    """Over windows of 3 x 3; what lies outside counts nowhere, in a mean neither."""
    if kind == "mean":
        return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)
    stride, padding = (1, "SAME") if kind == "max" else (2, "VALID")
    return nnx.max_pool(x, (3, 3), strides=(stride, stride), padding=padding)
