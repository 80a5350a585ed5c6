"""Sizes of SAM (arXiv:2304.02643); facts: segment-anything `build_sam.py`, `modeling/`."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

ENCODER_EPS = 1e-6
"""Of the image encoder's norms, and of all norms of [H W C] maps."""


@dataclass(frozen=True, kw_only=True)
class SAMConfig:
    """Sizes of the three parts."""

    width: int
    """Channels of the image encoder's tokens."""
    depth: int
    """Its blocks."""
    heads: int
    """Its heads; they share `width`."""
    global_blocks: tuple[int, ...]
    """Its blocks whose tokens see the whole picture; the others see a window."""
    image_size: int = 1024
    """Side of the square picture, pixels."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    window: int = 14
    """Side of a window, patches."""
    mlp_ratio: int = 4
    """Width of the encoder's MLP over `width`."""
    channels: int = 256
    """Of the embedded picture and of prompts; a multiple of 8."""
    mask_channels: int = 16
    """Of the mask prompt's last layer but one; a multiple of 4."""
    decoder_heads: int = 8
    """Of the mask decoder; half of `channels` is a multiple of them."""
    decoder_depth: int = 2
    """Two-way blocks of the mask decoder."""
    decoder_width: int = 2048
    """Of the MLPs in them."""
    decoder_eps: float = 1e-5
    """Of the norms in them."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; norms' statistics and softmax stay in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""

    def __post_init__(self):
        rules = {
            "width must be a multiple of heads": self.width % self.heads == 0,
            "image_size must be a multiple of patch_size": self.image_size % self.patch_size == 0,
            "channels must be a multiple of 8": self.channels % 8 == 0,
            "mask_channels must be a multiple of 4": self.mask_channels % 4 == 0,
            "half of channels must be a multiple of decoder_heads": self.channels
            % (2 * self.decoder_heads)
            == 0,
            "global_blocks must lie in 0..depth - 1": all(
                0 <= block < self.depth for block in self.global_blocks
            ),
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise ValueError(f"SAMConfig: {'; '.join(broken)}; got {self}")

    @classmethod
    def vit_b(cls, **overrides: Any) -> "SAMConfig":
        """sam_vit_b (94 M parameters)."""
        return cls._official(768, 12, 12, (2, 5, 8, 11), **overrides)

    @classmethod
    def vit_l(cls, **overrides: Any) -> "SAMConfig":
        """sam_vit_l (312 M parameters)."""
        return cls._official(1024, 24, 16, (5, 11, 17, 23), **overrides)

    @classmethod
    def vit_h(cls, **overrides: Any) -> "SAMConfig":
        """sam_vit_h (641 M parameters)."""
        return cls._official(1280, 32, 16, (7, 15, 23, 31), **overrides)

    @classmethod
    def _official(
        cls, width: int, depth: int, heads: int, global_blocks: tuple[int, ...], **overrides: Any
    ) -> "SAMConfig":
        sizes: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "global_blocks": global_blocks,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def nano(cls, **overrides: Any) -> "SAMConfig":
        """Test-sized: 5 x 5 patches, so that windows of 3 are padded."""
        sizes: dict[str, Any] = {
            "image_size": 80,
            "window": 3,
            "channels": 32,
            "mask_channels": 8,
            "decoder_heads": 2,
            "decoder_width": 48,
        }
        return cls._official(24, 3, 2, (1,), **(sizes | overrides))

    @property
    def grid(self) -> int:
        """Side of the embedded picture, patches."""
        return self.image_size // self.patch_size

    @property
    def mask_size(self) -> int:
        """Side of the masks that are prompts, and of those that are made."""
        return 4 * self.grid

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}
