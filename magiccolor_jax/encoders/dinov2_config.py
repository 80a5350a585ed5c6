"""Sizes of DINOv2, as its hub files' shapes or transformers' config.json give them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from magiccolor_jax.encoders import hf_config
from magiccolor_jax.nn.remat import Remat

LAYER_NORM_EPS = 1e-6

HF_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "image_size": 224,
    "use_swiglu_ffn": False,
}
HF_MODEL_DEFAULTS = {
    "dinov2": {"patch_size": 14, "num_register_tokens": 0},
    "dinov2_with_registers": {"patch_size": 16, "num_register_tokens": 4},
}
"""transformers' `configuration_dinov2*.py`: what a config.json leaves out has these values."""

HF_IGNORED = (
    "apply_layernorm",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "hidden_dropout_prob",
    "initializer_range",
    "layerscale_value",
    "out_features",
    "out_indices",
    "reshape_hidden_states",
    "stage_names",
    "use_mask_token",
)
"""Training, initial values, and what a backbone wrapper makes of the features."""


@dataclass(frozen=True, kw_only=True)
class DINOv2Config:
    """Sizes of a DINOv2 vision transformer; the fields carry transformers' names."""

    hidden_size: int
    """Channels of the token stream."""
    num_hidden_layers: int
    """Transformer blocks."""
    num_attention_heads: int
    """Heads; they share `hidden_size`."""
    num_register_tokens: int
    """Registers. Their number also chooses how positions are interpolated."""
    image_size: int = 518
    """Side of the square picture that the position table was trained for, pixels."""
    patch_size: int = 14
    """Side of one patch, pixels."""
    mlp_ratio: int = 4
    """MLP width over `hidden_size`, before SwiGLU's two thirds."""
    use_swiglu_ffn: bool = False
    """ViT-g's gated MLP."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; LayerNorm statistics, softmax and position interpolation stay in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""
    remat: Remat = "off"
    """Recompute each block in the backward pass."""

    def __post_init__(self):
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")
        hf_config.check_positive(self, (*names, "mlp_ratio", "grid"))
        if self.hidden_size % self.num_attention_heads or self.num_register_tokens < 0:
            raise ValueError(
                "DINOv2Config: hidden_size must be a multiple of num_attention_heads and "
                "num_register_tokens at least 0, got "
                f"{self.hidden_size}, {self.num_attention_heads}, {self.num_register_tokens}"
            )

    @classmethod
    def vits14(cls, registers: int = 4, **overrides: Any) -> "DINOv2Config":
        """dinov2_vits14 (22 M parameters); `registers` is 0 or 4."""
        return cls._official(384, 12, 6, registers, **overrides)

    @classmethod
    def vitb14(cls, registers: int = 4, **overrides: Any) -> "DINOv2Config":
        """dinov2_vitb14 (87 M parameters); `registers` is 0 or 4."""
        return cls._official(768, 12, 12, registers, **overrides)

    @classmethod
    def vitl14(cls, registers: int = 4, **overrides: Any) -> "DINOv2Config":
        """dinov2_vitl14 (304 M parameters); the release uses it with 4 registers."""
        return cls._official(1024, 24, 16, registers, **overrides)

    @classmethod
    def vitg14(cls, registers: int = 4, **overrides: Any) -> "DINOv2Config":
        """dinov2_vitg14 (1.14 G parameters); `registers` is 0 or 4."""
        return cls._official(1536, 40, 24, registers, use_swiglu_ffn=True, **overrides)

    @classmethod
    def _official(
        cls, width: int, layers: int, heads: int, registers: int, **overrides: Any
    ) -> "DINOv2Config":
        sizes: dict[str, Any] = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_register_tokens": registers,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def nano(cls, registers: int = 4, **overrides: Any) -> "DINOv2Config":
        """Test-sized: positions for 5x5 patches."""
        sizes: dict[str, Any] = {"image_size": 70}
        return cls._official(32, 2, 2, registers, **(sizes | overrides))

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "DINOv2Config":
        """Reads config.json of transformers' Dinov2 and Dinov2WithRegisters models.

        Raises:
            ValueError: the config is of another model or holds what this network cannot honour.
        """
        kind = hf_config.check_model_type(config, HF_MODEL_DEFAULTS, "DINOv2 config")
        values = hf_config.read(
            config,
            where="DINOv2 config",
            defaults=HF_DEFAULTS | HF_MODEL_DEFAULTS[kind],
            fixed={
                "hidden_act": "gelu",
                "layer_norm_eps": LAYER_NORM_EPS,
                "num_channels": 3,
                "qkv_bias": True,
            },
            ignored=HF_IGNORED,
        )
        return cls(**values)

    @property
    def grid(self) -> int:
        """Side of the position table, patches."""
        return self.image_size // self.patch_size

    @property
    def mlp_width(self) -> int:
        """Channels inside the MLP; SwiGLU keeps two thirds, rounded up to a multiple of 8."""
        full = self.hidden_size * self.mlp_ratio
        return (full * 2 // 3 + 7) // 8 * 8 if self.use_swiglu_ffn else full

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> DINOv2Config:
    """The official size that a hub state dict has: the hub files come without a config.

    Args:
        shapes: hub key -> shape.

    Raises:
        ValueError: the shapes are of no official size; they do not tell the number of heads, so
            such weights need a config.json.
    """
    blocks = {key.split(".")[1] for key in shapes if key.startswith("blocks.")}
    found = {
        "pos_embed": shapes.get("pos_embed"),
        "patch_embed.proj.weight": shapes.get("patch_embed.proj.weight"),
        "register_tokens": shapes.get("register_tokens"),
        "blocks": len(blocks),
        "swiglu": "blocks.0.mlp.w12.weight" in shapes,
    }
    sizes = (DINOv2Config.vits14, DINOv2Config.vitb14, DINOv2Config.vitl14, DINOv2Config.vitg14)
    for config in (size(registers) for size in sizes for registers in (0, 4)):
        if found == _fingerprint(config):
            return config
    raise ValueError(
        f"DINOv2: no official ViT-S/B/L/g with 0 or 4 registers has these shapes: {found}; "
        "put a transformers-style config.json beside the weights"
    )


def _fingerprint(cfg: DINOv2Config) -> dict[str, Any]:
    """What `infer_config` looks at, for a known size."""
    width, registers = cfg.hidden_size, cfg.num_register_tokens
    return {
        "pos_embed": (1, cfg.grid**2 + 1, width),
        "patch_embed.proj.weight": (width, 3, cfg.patch_size, cfg.patch_size),
        "register_tokens": (1, registers, width) if registers else None,
        "blocks": cfg.num_hidden_layers,
        "swiglu": cfg.use_swiglu_ffn,
    }
