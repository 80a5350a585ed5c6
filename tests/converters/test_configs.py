"""diffusers' config.json: strict, and the same both ways."""

import pytest
from make_release_checkpoint import load_configs

from converters import configs
from converters.write_configs import to_hf
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.encoders.vgg import VGG19Config
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.segment.sam_config import SAMConfig
from magiccolor_jax.types import Sizes

UNET = load_configs("full")["stable-diffusion-v1-5/unet/config.json"]
GUIDER = load_configs("full")["MagicColor/controlnet_multi/config.json"]
VAE = load_configs("full")["sd-vae-ft-mse/config.json"]


def test_the_published_configs_are_the_released_sizes():
    assert configs.unet_from_hf(UNET, "x") == UNetConfig.sd15()
    assert configs.unet_from_hf(UNET, "x", head=False) == UNetConfig.sd15(head=False)
    assert configs.controlnet_from_hf(GUIDER, "x", adapter=True) == ControlNetConfig.multi()
    assert configs.vae_from_hf(VAE, "x") == VAEConfig.sd15()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("unet", UNetConfig.nano(attention=(False, True, True, False))),
        ("controlnet", ControlNetConfig.nano(conditioning_channels=5)),
        ("vae", VAEConfig.nano(scaling_factor=0.5)),
        ("clip_vision", CLIPVisionConfig.nano()),
        ("clip_text", CLIPTextConfig.nano()),
        ("dinov2", DINOv2Config.nano()),
        ("dinov2", DINOv2Config.nano(registers=0, use_swiglu_ffn=True)),
        ("sam", SAMConfig.nano()),
        ("sam", SAMConfig.vit_h(decoder_eps=1e-6)),
    ],
)
def test_what_is_written_is_read_again(kind, config):
    assert configs.FROM_HF[kind](to_hf(config, page=128), "x") == config


@pytest.mark.torch
@pytest.mark.parametrize("name", ["UNet2DConditionModel", "ControlNetModel", "AutoencoderKL"])
def test_every_field_that_diffusers_writes_is_known(name, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    readers = {
        "UNet2DConditionModel": configs.unet_from_hf,
        "ControlNetModel": configs.controlnet_from_hf,
        "AutoencoderKL": configs.vae_from_hf,
    }
    sizes = {"block_out_channels": (32,) * (1 if name == "AutoencoderKL" else 4)}
    getattr(diffusers, name)(**sizes).save_config(tmp_path)
    from converters.plan import read_json

    readers[name](read_json(tmp_path / "config.json"), "x")


@pytest.mark.parametrize(
    ("reader", "base", "changes", "message"),
    [
        (configs.unet_from_hf, UNET, {"use_linear_projection": True}, "use_linear_projection"),
        (configs.unet_from_hf, UNET, {"class_embed_type": "timestep"}, "class_embed_type"),
        (configs.unet_from_hf, UNET, {"wings": 2}, "wings: unknown field with value 2"),
        (configs.unet_from_hf, UNET, {"attention_head_dim": [5, 10, 20, 20]}, "like 8, got"),
        (configs.unet_from_hf, UNET, {"_class_name": "UNet3D"}, "expected 'UNet2DCondition"),
        (configs.unet_from_hf, UNET, {"up_block_types": ["UpBlock2D"] * 4}, "must mirror"),
        (configs.unet_from_hf, UNET, {"layers_per_block": True}, "like 2, got True"),
        (configs.unet_from_hf, UNET, {"norm_num_groups": 0}, "like 32, got 0"),
        (configs.unet_from_hf, UNET, {"num_attention_heads": "8"}, "got '8'"),
        (configs.vae_from_hf, VAE, {"block_out_channels": None}, "block_out_channels: .* got None"),
        (configs.vae_from_hf, VAE, {"scaling_factor": 0}, "scaling_factor: .* got 0"),
        (
            configs.controlnet_from_hf,
            GUIDER,
            {"down_block_types": ["DownBlock3D"] * 4},
            "down_block_types must name",
        ),
        (configs.controlnet_from_hf, GUIDER, {"global_pool_conditions": True}, "global_pool"),
        (configs.vae_from_hf, VAE, {"shift_factor": 0.1}, "shift_factor: expected None"),
        (configs.vae_from_hf, VAE, {"down_block_types": ["AttnDown"] * 4}, "down_block_types"),
    ],
)
def test_what_we_cannot_honour_is_refused_by_name(reader, base, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        reader(base | changes, "some/config.json")
    assert "some/config.json" in str(error.value)


def test_one_report_names_every_field():
    with pytest.raises(ValueError) as error:
        configs.unet_from_hf(UNET | {"wings": 2, "act_fn": "relu"}, "x")
    assert "wings" in str(error.value) and "act_fn" in str(error.value)


@pytest.mark.parametrize(
    ("unet", "clip", "dinov2", "sizes"),
    [
        (UNET, CLIPVisionConfig.vit_l14(), DINOv2Config.vitl14(), Sizes()),
        ({"sample_size": [32, 32]}, None, None, Sizes(page=256, canvas=256)),
        (
            {"sample_size": 16},
            CLIPVisionConfig.nano(),
            DINOv2Config.nano(),
            Sizes(page=128, canvas=128, reference=56, patch=14, clip=32),
        ),
        ({"sample_size": None}, None, None, Sizes()),
    ],
)
def test_picture_sizes_come_from_the_configs(unet, clip, dinov2, sizes):
    assert configs.read_sizes(configs.read_page(unet), clip, dinov2) == sizes


@pytest.mark.parametrize("size", [[16, 32], [16], [16, 16, 16], "64", -3, True, {"height": 64}])
def test_what_is_no_size_of_a_page_is_refused(size):
    with pytest.raises(ValueError, match="sample_size: expected the side"):
        configs.read_page({"sample_size": size})


def test_vgg19_has_no_config_json():
    with pytest.raises(ValueError, match="VGG19Config"):
        to_hf(VGG19Config.nano(), page=128)
