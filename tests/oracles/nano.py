"""Test-sized, perturbed PyTorch models of a whole release (release.md §1)."""

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from oracles.dinov2_hub import DINOv2Hub
from oracles.perturb import perturb_
from oracles.release import ReleaseInputs, ReleaseModels, ReleaseNoise, with_dino_adapter
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from magiccolor_jax.encoders.dinov2_config import DINOv2Config

CONTEXT = 24
DINO_WIDTH = 32
PAGE, DINO_PIXELS, CLIP_PIXELS = 128, 56, 32
"""Picture sizes that suit these models: matching sees 8x8 positions, DINOv2's 5x5 position table is
resized to 4x4."""

_UNET = {
    "block_out_channels": (16, 32, 32, 32),
    "norm_num_groups": 8,
    "cross_attention_dim": CONTEXT,
    # The number of heads, not their width: diffusers' slip in SD1.5's config.
    "attention_head_dim": 4,
}


def nano_release_models(seed: int = 0) -> ReleaseModels:
    """Every network of the release, each under a million parameters, none like another.

    SD1.5's block types and its number of blocks and attentions, at small widths.
    """
    models = ReleaseModels(
        vae=_vae(),
        text_encoder=clip_text(),
        clip_text=clip_text(),
        clip_vision=_clip_vision(),
        dino=DINOv2Hub(DINOv2Config.nano()),
        reference=UNet2DConditionModel(**_UNET),
        denoiser=UNet2DConditionModel(**_UNET),
        sketch_guider=_guider(3),
        multi_guider=_guider(DINO_WIDTH),
    )
    for offset, model in enumerate(models):
        perturb_(model, seed * len(models) + offset)
    return models


def nano_release_case(
    seed: int = 0, page: tuple[int, int] = (PAGE, PAGE)
) -> tuple[ReleaseInputs, ReleaseNoise]:
    """Three smooth random instances, the second over the first, and every draw of a sample."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(count, height, width):
        coarse = torch.randn(count, 3, 8, 8, generator=generator)
        return functional.interpolate(coarse, size=(height, width), mode="bicubic").tanh()

    height, width = page
    id_map = torch.zeros(page, dtype=torch.int64)
    id_map[height // 8 : height // 2, width // 6 : width // 2] = 1
    id_map[height // 3 : height - 5, width // 3 : width - 20] = 2
    id_map[3 : height // 9, width // 2 : width - 7] = 3
    inputs = ReleaseInputs(
        smooth(1, height, width),
        smooth(1, PAGE, PAGE),
        smooth(1, CLIP_PIXELS, CLIP_PIXELS),
        smooth(3, DINO_PIXELS, DINO_PIXELS),
        id_map,
    )
    noise = ReleaseNoise(
        torch.randn(1, 4, height // 8, width // 8, generator=generator),
        torch.randn(1, 4, PAGE // 8, PAGE // 8, generator=generator),
        torch.randperm((PAGE // 16) ** 2, generator=generator),
    )
    return inputs, noise


def _guider(channels: int) -> ControlNetModel:
    sizes = {
        "conditioning_channels": channels,
        "conditioning_embedding_out_channels": (4, 8, 12, 16),
    }
    return with_dino_adapter(ControlNetModel(**_UNET, **sizes))


def _vae() -> AutoencoderKL:
    widths = (8, 16, 16, 16)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )


def clip_text(width: int = CONTEXT) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=64,
            max_position_embeddings=16,
            bos_token_id=62,
            eos_token_id=63,
        )
    )


def _clip_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=CLIP_PIXELS,
            patch_size=8,
            projection_dim=CONTEXT,
        )
    )
