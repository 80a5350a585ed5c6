"""The committed key list against the live libraries, at full size, on the meta device."""

import json

import pytest
from make_release_checkpoint import FILES, SIZES_OF, load_configs

from converters import configs, maps
from converters.keylist import expected_tensors
from converters.weightmap import misfits, wanted
from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.encoders.dinov2_config import infer_config
from magiccolor_jax.encoders.vgg import VGG19Config

KINDS = {
    "unet": "unet",
    "unet_without_norm_out": "unet",
    "controlnet": "controlnet",
    "guider": "controlnet",
    "vae": "vae",
    "clip_text": "clip_text",
    "dinov2": "dinov2",
}
COUNTS = {"unet": 686, "controlnet": 340, "vae": 248, "clip_text": 197, "clip": 592, "dinov2": 344}
"""Tensors in the published files."""


def sizes(section, size="full"):
    files = {name: (path, config) for path, name, config in FILES}
    path, config = files[section]
    name = config or path.rpartition("/")[0] + "/config.json"
    content = load_configs(size)[name]
    return SIZES_OF[section](content), content


@pytest.mark.parametrize("section", COUNTS)
def test_the_published_files_have_this_many_tensors(section):
    assert len(expected_tensors(section, sizes(section)[0])) == COUNTS[section]


@pytest.mark.parametrize("size", ["full", "nano"])
@pytest.mark.parametrize("section", KINDS)
def test_the_literal_keys_fit_our_networks(section, size):
    numbers, content = sizes(section, size)
    tensors = {key: spec.shape for key, spec in expected_tensors(section, numbers).items()}
    kind, extra = KINDS[section], {}
    weight_map = maps.BY_KIND[kind]
    if section == "unet_without_norm_out":
        weight_map, extra = maps.REFERENCE_UNET, {"head": False}
    if section == "guider":
        extra = {"adapter": True}
    if kind == "dinov2" and size == "full":
        config = infer_config(tensors)
    else:
        config = configs.FROM_HF[kind](content, section, **extra)
    style = maps.detect_style(kind, tensors)
    asked = wanted(weight_map, parameter_shapes(config), style)
    assert not misfits(asked, tensors, weight_map.is_extra, style)


def test_vgg19s_literal_keys_fit():
    numbers = {"w1": 64, "w2": 128, "w3": 256, "w4": 512, "w5": 512, "hidden": 4096}
    tensors = expected_tensors("vgg19", numbers | {"classes": 1000, "pooled": 49})
    found = {key: spec.shape for key, spec in tensors.items()}
    asked = wanted(maps.VGG19, parameter_shapes(VGG19Config.vgg19()))
    assert not misfits(asked, found, maps.VGG19.is_extra)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("section", "class_name"), [("unet", "UNet2DConditionModel"), ("controlnet", "ControlNetModel")]
)
def test_diffusers_has_the_same_names_and_shapes(section, class_name):
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    numbers, content = sizes(section)
    with torch.device("meta"):
        model = getattr(diffusers, class_name).from_config(content)
    live = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {k: spec.shape for k, spec in expected_tensors(section, numbers).items()} == live


@pytest.mark.torch
def test_diffusers_autoencoder_differs_by_the_old_attention_names_alone():
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    numbers, content = sizes("vae")
    with torch.device("meta"):
        model = diffusers.AutoencoderKL.from_config(content)
    old = maps.DIFFUSERS_OLD_ATTENTION
    live = {old.file_keys(k)[0]: tuple(t.shape) for k, t in model.state_dict().items()}
    assert {k: spec.shape for k, spec in expected_tensors("vae", numbers).items()} == live


def test_an_undefined_size_is_named():
    with pytest.raises(KeyError, match="context"):
        expected_tensors("unet", {"c0": 8, "c1": 8, "c2": 8, "c3": 8, "latent": 4})


def test_the_configs_are_plain_json():
    assert json.loads(json.dumps(load_configs("nano"))) == load_configs("nano")
