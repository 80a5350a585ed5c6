"""Sizes of SAM (arXiv:2304.02643), as its files' shapes or transformers' config.json give them.

Facts: segment-anything `build_sam.py`, `modeling/`; transformers `configuration_sam.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from magiccolor_jax.encoders import hf_config

ENCODER_EPS = 1e-6
"""Of the image encoder's norms, and of all norms of [H W C] maps."""

FINAL_EPS = 1e-5
"""Of the decoder's last norm, in every implementation."""

DECODER_REDUCTION = 2
"""Channels of the decoder's tokens over those in its attention to and from the picture."""

HF_VISION = {
    "hidden_size": 768,
    "output_channels": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 1024,
    "patch_size": 16,
    "mlp_ratio": 4.0,
    "window_size": 14,
    "global_attn_indexes": [2, 5, 8, 11],
}
HF_PROMPTS = {"hidden_size": 256, "image_size": 1024, "patch_size": 16, "mask_input_channels": 16}
HF_DECODER = {
    "hidden_size": 256,
    "mlp_dim": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "iou_head_hidden_dim": 256,
    "layer_norm_eps": 1e-6,
}
"""What a section of config.json leaves out has these values."""

HF_FIXED = {
    "hidden_act": "gelu",
    "layer_norm_eps": ENCODER_EPS,
    "num_channels": 3,
    "qkv_bias": True,
    "use_abs_pos": True,
    "use_rel_pos": True,
    "num_point_embeddings": 4,
}
HF_DECODER_FIXED = {
    "hidden_act": "relu",
    "attention_downsample_rate": DECODER_REDUCTION,
    "num_multimask_outputs": 3,
    "iou_head_depth": 3,
}
HF_IGNORED = (
    "attention_dropout",
    "dropout",
    "image_embedding_size",
    "initializer_factor",
    "initializer_range",
    "intermediate_size",
    "projection_dim",
    "scale",
)
"""Training, initial values, and what other keys say too."""


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
    """Of the norms in them; transformers' folders have 1e-6."""
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

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "SAMConfig":
        """Reads config.json of transformers' SamModel.

        Raises:
            ValueError: the config is of another model or holds what this network cannot honour.
        """
        hf_config.check_model_type(config, ("sam",), "SAM config")
        sections = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        hf_config.read(
            config, where="SAM config", defaults={}, fixed={}, ignored=(*sections, *HF_IGNORED)
        )
        vision, prompts, decoder = (_section(config, name) for name in sections)
        agreed = {
            "vision_config.output_channels": vision["output_channels"],
            "prompt_encoder_config.hidden_size": prompts["hidden_size"],
            "mask_decoder_config.hidden_size": decoder["hidden_size"],
            "mask_decoder_config.iou_head_hidden_dim": decoder["iou_head_hidden_dim"],
            "twice vision_config.num_pos_feats": 2 * vision["num_pos_feats"],
        }
        sides = [[part[key] for key in ("image_size", "patch_size")] for part in (vision, prompts)]
        if len({*agreed.values()}) > 1 or sides[0] != sides[1]:
            raise ValueError(
                f"SAM config: the parts must have the same channels and sides, got {agreed} and "
                f"image_size, patch_size {sides}"
            )
        ratio, rest = divmod(vision["mlp_dim"], vision["hidden_size"])
        if rest:
            raise ValueError(
                f"SAM config: mlp_dim must be a multiple of hidden_size, got {vision['mlp_dim']}"
            )
        return cls(
            width=vision["hidden_size"],
            depth=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            global_blocks=tuple(vision["global_attn_indexes"]),
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            window=vision["window_size"],
            mlp_ratio=ratio,
            channels=vision["output_channels"],
            mask_channels=prompts["mask_input_channels"],
            decoder_heads=decoder["num_attention_heads"],
            decoder_depth=decoder["num_hidden_layers"],
            decoder_width=decoder["mlp_dim"],
            decoder_eps=decoder["layer_norm_eps"],
        )

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


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of config.json, with what it leaves out."""
    given = config.get(name) or {}
    if name == "mask_decoder_config":
        defaults, fixed = HF_DECODER, HF_DECODER_FIXED
    elif name == "prompt_encoder_config":
        defaults, fixed = HF_PROMPTS, HF_FIXED
    else:
        width = given.get("hidden_size", HF_VISION["hidden_size"])
        mlp = int(width * given.get("mlp_ratio", HF_VISION["mlp_ratio"]))
        features = given.get("output_channels", HF_VISION["output_channels"]) // 2
        defaults = HF_VISION | {"mlp_dim": mlp, "num_pos_feats": features}
        fixed, given = HF_FIXED, {k: v for k, v in given.items() if (k, v) != ("mlp_dim", None)}
    where = f"SAM config: {name}"
    return hf_config.read(given, where=where, defaults=defaults, fixed=fixed, ignored=HF_IGNORED)


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> SAMConfig:
    """The sizes that segment-anything's own files tell; they come without a config.

    What shapes do not tell is as in the official files: eight heads in the decoder.

    Args:
        shapes: key -> shape.

    Raises:
        ValueError: layers that every SAM has are missing, or the windows differ.
    """
    encoder, decoder = "image_encoder", "mask_decoder.transformer"
    depth = _count(shapes, encoder, "blocks")
    tables = [f"{encoder}.blocks.{index}.attn.rel_pos_h" for index in range(depth)]
    telling = (
        f"{encoder}.patch_embed.proj.weight",
        f"{encoder}.pos_embed",
        f"{encoder}.blocks.0.mlp.lin1.weight",
        f"{encoder}.neck.0.weight",
        "prompt_encoder.mask_downscaling.3.weight",
        f"{decoder}.layers.0.mlp.lin1.weight",
    )
    if missing := [key for key in (*telling, *tables) if key not in shapes]:
        raise ValueError(
            f"expected segment-anything's layers, but these are missing: {missing}; a folder of "
            "transformers needs its config.json"
        )
    patch, positions, mlp, neck, downscaling, decoder_mlp = (shapes[key] for key in telling)
    width, grid, head = patch[0], positions[1], shapes[tables[0]][1]
    sides = [(shapes[table][0] + 1) // 2 for table in tables]
    windows = {side for side in sides if side != grid}
    if len(windows) > 1:
        raise ValueError(f"expected windows of one size, got {sorted(windows)} patches")
    window: dict[str, Any] = {"window": windows.pop()} if windows else {}
    return SAMConfig(
        width=width,
        depth=depth,
        heads=width // head,
        global_blocks=tuple(index for index, side in enumerate(sides) if side == grid),
        image_size=grid * patch[2],
        patch_size=patch[2],
        mlp_ratio=mlp[0] // width,
        channels=neck[0],
        mask_channels=downscaling[0],
        decoder_depth=_count(shapes, decoder, "layers"),
        decoder_width=decoder_mlp[0],
        **window,
    )


def _count(shapes: Mapping[str, tuple[int, ...]], where: str, name: str) -> int:
    """How many numbered parts there are."""
    start = f"{where}.{name}."
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})
