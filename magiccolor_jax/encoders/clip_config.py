"""Sizes of CLIP's two towers, and how transformers' config.json gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from magiccolor_jax.encoders import hf_config
from magiccolor_jax.nn.remat import Remat

HIDDEN_ACTS = ("quick_gelu", "gelu")

LEGACY_TOKENS = {"bos_token_id": 0, "eos_token_id": 2}
"""What older configs hold, SD1.5's text encoder and clip-vit-large-patch14 among them. They never
were CLIP's, whose vocabulary ends with bos, eos (huggingface/transformers#24773)."""

TOWER_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
"""transformers' `configuration_clip.py`: what a config.json leaves out has these values."""

TEXT_DEFAULTS = TOWER_DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
VISION_DEFAULTS = TOWER_DEFAULTS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
}

TRAINING_ONLY = ("attention_dropout", "dropout", "initializer_factor", "initializer_range")


@dataclass(frozen=True, kw_only=True)
class CLIPTowerConfig:
    """What both towers have in common; the fields carry transformers' names."""

    hidden_size: int
    """Channels of the token stream."""
    intermediate_size: int
    """Channels inside the MLP."""
    num_hidden_layers: int
    """Transformer layers."""
    num_attention_heads: int
    """Heads; they share `hidden_size`."""
    hidden_act: str = "quick_gelu"
    """`quick_gelu`, x sigmoid(1.702 x), as in OpenAI's weights; or `gelu`, by the exact erf."""
    layer_norm_eps: float = 1e-5
    """Epsilon of every LayerNorm."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype; LayerNorm statistics and softmax stay in f32."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype of the parameters."""
    remat: Remat = "off"
    """Recompute each layer in the backward pass."""

    def __post_init__(self):
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        hf_config.check_positive(self, names)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"{type(self).__name__}: hidden_size must be a multiple of num_attention_heads, "
                f"got {self.hidden_size} and {self.num_attention_heads}"
            )
        if self.hidden_act not in HIDDEN_ACTS:
            raise ValueError(
                f"{type(self).__name__}: hidden_act must be one of {HIDDEN_ACTS}, "
                f"got {self.hidden_act!r}"
            )

    @property
    def kinds(self) -> dict[str, Any]:
        """Dtypes as every layer takes them."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


@dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(CLIPTowerConfig):
    """Sizes of the vision tower."""

    image_size: int
    """Side of the square input, pixels."""
    patch_size: int
    """Side of one patch, pixels."""
    projection_dim: int
    """Channels of the image embedding."""

    def __post_init__(self):
        super().__post_init__()
        hf_config.check_positive(self, ("image_size", "patch_size", "projection_dim"))

    @classmethod
    def vit_l14(cls, **overrides: Any) -> "CLIPVisionConfig":
        """openai/clip-vit-large-patch14 (304.0 M parameters with the projection)."""
        sizes: dict[str, Any] = {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "projection_dim": 768,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def nano(cls, **overrides: Any) -> "CLIPVisionConfig":
        """Test-sized; the embedding fits UNetConfig.nano()'s context."""
        sizes: dict[str, Any] = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 24,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "CLIPVisionConfig":
        """Reads config.json of a CLIPModel (both towers) or a CLIPVisionModelWithProjection.

        Raises:
            ValueError: the config is of another model or holds what this network cannot honour.
        """
        values = hf_config.read(
            _section(config, "vision_config", "clip_vision_model"),
            where="CLIP vision config",
            defaults=VISION_DEFAULTS,
            fixed={"num_channels": 3},
            ignored=TRAINING_ONLY,
        )
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(CLIPTowerConfig):
    """Sizes and special tokens of the text tower."""

    vocab_size: int
    """Token ids are 0..vocab_size-1."""
    max_position_embeddings: int
    """Longest prompt, tokens."""
    bos_token_id: int
    """First token of every prompt."""
    eos_token_id: int
    """Last token of every prompt."""

    def __post_init__(self):
        super().__post_init__()
        hf_config.check_positive(self, ("vocab_size", "max_position_embeddings"))
        for name in ("bos_token_id", "eos_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(
                    f"CLIPTextConfig: {name} must be below vocab_size {self.vocab_size}, "
                    f"got {getattr(self, name)}"
                )

    @property
    def empty_prompt(self) -> tuple[int, int]:
        """The empty prompt unpadded: what the unconditional branch reads (release.md §2.3)."""
        return self.bos_token_id, self.eos_token_id

    @classmethod
    def vit_l14(cls, **overrides: Any) -> "CLIPTextConfig":
        """openai/clip-vit-large-patch14, also SD1.5's text_encoder (123.1 M parameters)."""
        sizes: dict[str, Any] = {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def nano(cls, **overrides: Any) -> "CLIPTextConfig":
        """Test-sized, fits UNetConfig.nano()'s context."""
        sizes: dict[str, Any] = {
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 64,
            "max_position_embeddings": 16,
            "bos_token_id": 62,
            "eos_token_id": 63,
        }
        return cls(**(sizes | overrides))

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "CLIPTextConfig":
        """Reads config.json of a CLIPModel (both towers) or a CLIPTextModel.

        Raises:
            ValueError: the config is of another model or holds what this network cannot honour.
        """
        values = hf_config.read(
            _section(config, "text_config", "clip_text_model"),
            where="CLIP text config",
            defaults=TEXT_DEFAULTS,
            fixed={},
            ignored=(*TRAINING_ONLY, "projection_dim"),
        )
        if LEGACY_TOKENS.items() <= values.items():
            last = values["vocab_size"] - 1
            values |= {"bos_token_id": last - 1, "eos_token_id": last}
        return cls(**values)


def _section(config: Mapping[str, Any], name: str, own_type: str) -> dict[str, Any]:
    """One tower's part of a config, whether it stands alone or beside the other tower's.

    Raises:
        ValueError: wrong model_type, unknown top-level keys, or two values for one key.
    """
    where = f"CLIP config ({name})"
    if hf_config.check_model_type(config, {"clip", own_type}, where) == own_type:
        return dict(config)
    top = hf_config.read(
        config,
        where=where,
        defaults={"projection_dim": 512},
        fixed={},
        ignored=(
            "initializer_factor",
            "logit_scale_init_value",
            *(f"{tower}_config{old}" for tower in ("text", "vision") for old in ("", "_dict")),
        ),
    )
    section = dict(config.get(name) or {})
    # Old files hold the constructor's arguments a second time; transformers lets them win.
    for key, value in (config.get(f"{name}_dict") or {}).items():
        if section.setdefault(key, value) != value:
            raise ValueError(
                f"{where}: {key} is {section[key]!r} in {name} but {value!r} in {name}_dict; "
                "make them agree"
            )
    # CLIPModel sizes its projections by the top-level value, whatever the sections say.
    return section | top
