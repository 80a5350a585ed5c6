"""Release -> JAX -> release, bit for bit; and -> folders that the libraries load."""

import json
import re

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from converters import ConvertArgs  # noqa: E402
from converters.containers import open_weights  # noqa: E402
from converters.manifest import EXTRA, read_manifest  # noqa: E402
from converters.run import convert  # noqa: E402
from magiccolor_jax.checkpoint import load_network, read_config  # noqa: E402
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig  # noqa: E402
from magiccolor_jax.encoders.dinov2_config import DINOv2Config  # noqa: E402
from magiccolor_jax.encoders.vae import VAEConfig  # noqa: E402
from magiccolor_jax.encoders.vgg import VGG19Config  # noqa: E402
from magiccolor_jax.files import sha256_of  # noqa: E402
from magiccolor_jax.models.controlnet import ControlNetConfig  # noqa: E402
from magiccolor_jax.models.unet import UNetConfig  # noqa: E402
from magiccolor_jax.recipe import Recipe  # noqa: E402
from magiccolor_jax.tensorfile import TensorFile  # noqa: E402
from magiccolor_jax.types import Sizes  # noqa: E402


def files_of(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def contents(path):
    """Keys in order, with type, shape and bytes."""
    with open_weights(path) as weights:
        return [
            (key, spec.dtype, spec.shape, weights.read(key).tobytes())
            for key, spec in weights.specs.items()
        ]


def test_the_release_comes_back_bit_for_bit(torch_release, jax_folder, tmp_path):
    convert(ConvertArgs(source=jax_folder, output=tmp_path / "back"))
    before, after = files_of(torch_release), files_of(tmp_path / "back")
    assert sorted(before) == sorted(after)
    for name, path in before.items():
        if name.endswith((".pth", ".bin")):
            assert contents(after[name]) == contents(path), name
        else:
            assert after[name].read_bytes() == path.read_bytes(), name


def test_the_jax_folder_holds_the_named_networks(jax_folder):
    model = read_config(jax_folder)
    guider = ControlNetConfig.nano()
    assert model.networks == {
        "denoiser": UNetConfig.nano(),
        "reference": UNetConfig.nano(head=False),
        "sketch_guider": guider,
        "instance_guider": ControlNetConfig.nano(conditioning_channels=32, adapter=True),
        "vae": VAEConfig.nano(),
        "clip_vision": CLIPVisionConfig.nano(),
        "clip_text": CLIPTextConfig.nano(),
        "text_encoder": CLIPTextConfig.nano(),
        "dinov2": DINOv2Config.nano(),
        "init/unet": UNetConfig.nano(),
        "init/vae": VAEConfig.nano(),
        "init/controlnet_lineart": guider,
        "vgg19": VGG19Config.nano(),
    }
    assert model.recipe == Recipe.release()
    assert model.sizes == Sizes(page=128, canvas=128, reference=56, patch=14, clip=32)


@pytest.mark.parametrize(
    ("stem", "path", "key", "turned"),
    [
        (
            "denoiser",
            "MagicColor/denoising_unet.pth",
            "down_blocks.1.resnets.0.conv1",
            (2, 3, 1, 0),
        ),
        ("dinov2", "dinov2_vitl14_reg4_pretrain.pth", "blocks.1.attn.qkv", (1, 0)),
    ],
)
def test_values_are_those_of_the_source(torch_release, jax_folder, stem, path, key, turned):
    network = load_network(jax_folder, stem, read_config(jax_folder).networks[stem])
    module = network
    for name in key.split("."):
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    theirs = torch.load(torch_release / path, weights_only=True)[f"{key}.weight"].numpy()
    np.testing.assert_array_equal(module.kernel.get_value(), theirs.transpose(turned))


def test_what_no_network_uses_travels_in_extra(jax_folder):
    names = {
        re.sub(r"(bin|pth|safetensors)/", "FILE:", name)
        for name in TensorFile(jax_folder / EXTRA).specs
    }
    assert {name.partition(":")[2] for name in names} == {
        *("conv_out.weight", "conv_out.bias", "dino_adapter.0.weight", "dino_adapter.0.bias"),
        *("logit_scale", "text_projection.weight", "mask_token"),
        *(f"{tower}_model.embeddings.position_ids" for tower in ("text", "vision")),
        *(f"classifier.{i}.{leaf}" for i in (0, 3, 6) for leaf in ("weight", "bias")),
    }


def test_the_manifest_remembers_every_file(torch_release, jax_folder):
    manifest = read_manifest(jax_folder)
    records = {file.path: (file, source) for source in manifest.sources for file in source.files}
    for path, (file, _) in records.items():
        assert file.sha256 == sha256_of(torch_release / path)
    styles = {path: source.style for path, (_, source) in records.items()}
    assert styles["sd-vae-ft-mse/diffusion_pytorch_model.bin"] == "diffusers-old-attention"
    assert styles["dinov2_vitl14_reg4_pretrain.pth"] == "dinov2-hub"
    assert records["vgg19-dcbb9e9d.pth"][0].container == "torch_legacy"


def test_both_containers_of_the_stand_in_hold_the_same(release, torch_release):
    a = dict(
        (key, rest) for key, *rest in contents(release / "MagicColor/reference_unet.safetensors")
    )
    b = dict(
        (key, rest) for key, *rest in contents(torch_release / "MagicColor/reference_unet.pth")
    )
    assert a == b


@pytest.fixture(scope="module")
def library(jax_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("library") / "out"
    convert(ConvertArgs(source=jax_folder, output=folder, to="diffusers"))
    return folder


DIFFUSERS = {
    "denoiser": "UNet2DConditionModel",
    "reference": "UNet2DConditionModel",
    "sketch_guider": "ControlNetModel",
    "vae": "AutoencoderKL",
    "init/controlnet_lineart": "ControlNetModel",
}
TRANSFORMERS = {
    "clip_vision": "CLIPVisionModelWithProjection",
    "clip_text": "CLIPTextModel",
    "dinov2": "Dinov2WithRegistersModel",
}


@pytest.mark.parametrize("stem", DIFFUSERS)
def test_diffusers_loads_the_export(library, stem):
    diffusers = pytest.importorskip("diffusers")
    kind = getattr(diffusers, DIFFUSERS[stem])
    model, info = kind.from_pretrained(library / stem, output_loading_info=True)
    assert not info["missing_keys"]
    adapter = {"dino_adapter.0.weight", "dino_adapter.0.bias"}
    assert set(info["unexpected_keys"]) == (adapter if stem == "sketch_guider" else set())
    assert model.config["sample_size"] == 16 if stem == "denoiser" else True


@pytest.mark.parametrize("stem", TRANSFORMERS)
def test_transformers_loads_the_export(library, stem):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, TRANSFORMERS[stem])
    _, info = kind.from_pretrained(library / stem, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_the_export_takes_scheduler_and_tokenizer_along(library, torch_release):
    name = "scheduler/scheduler_config.json"
    assert (library / name).read_bytes() == (
        torch_release / "stable-diffusion-v1-5" / name
    ).read_bytes()
    assert (library / "tokenizer/vocab.json").is_file()


@pytest.mark.parametrize(
    "stem",
    ["denoiser", "reference", "instance_guider", "vae", "clip_vision", "clip_text", "dinov2"],
)
def test_a_library_folder_converts_to_the_same_network(library, jax_folder, tmp_path, stem):
    """Also through other key styles: DINOv2's q, k and v are apart in transformers."""
    convert(ConvertArgs(source=library / stem, output=tmp_path / "out"))
    (name,) = read_config(tmp_path / "out").networks
    ours = TensorFile(jax_folder / f"{stem}.safetensors")
    again = TensorFile(tmp_path / "out" / f"{name}.safetensors")
    head = {
        p
        for p in again.specs
        if stem == "reference" and p.startswith(("conv_norm_out", "conv_out"))
    }
    assert set(ours.specs) == set(again.specs) - head
    for path in ours.specs:
        np.testing.assert_array_equal(again.read(path), ours.read(path), err_msg=path)


def test_a_single_file_comes_back(torch_release, tmp_path):
    source = torch_release / "MagicColor/controlnet_multi"
    convert(ConvertArgs(source=source, output=tmp_path / "jax"))
    assert list(read_config(tmp_path / "jax").networks) == ["controlnet"]
    convert(ConvertArgs(source=tmp_path / "jax", output=tmp_path / "back"))
    for name, path in files_of(source).items():
        assert (tmp_path / "back" / name).read_bytes() == path.read_bytes()


def test_a_changed_weight_goes_back_changed(torch_release, tmp_path):
    """What a training has changed is what export writes."""
    convert(ConvertArgs(source=torch_release / "sd-vae-ft-mse", output=tmp_path / "jax"))
    path = tmp_path / "jax" / "vae.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(7.0).tobytes()
    path.write_bytes(data)
    convert(ConvertArgs(source=tmp_path / "jax", output=tmp_path / "back"))
    name = "diffusion_pytorch_model.bin"
    pairs = zip(
        contents(torch_release / "sd-vae-ft-mse" / name),
        contents(tmp_path / "back" / name),
        strict=True,
    )
    assert sum(a != b for a, b in pairs) == 1


def test_the_configs_of_an_export_are_what_the_networks_are(library):
    content = json.loads((library / "dinov2/config.json").read_text())
    assert DINOv2Config.from_hf(content) == DINOv2Config.nano()


@pytest.mark.parametrize("kind", ["CLIPText", "CLIPVision", "Dinov2"])
def test_what_transformers_saves_today_converts_and_comes_back(library, tmp_path, kind):
    """It renames modules between versions; `from_pretrained`, `save_pretrained` shows today's."""
    transformers = pytest.importorskip("transformers")
    stem, name = {
        "CLIPText": ("clip_text", "CLIPTextModel"),
        "CLIPVision": ("clip_vision", "CLIPVisionModelWithProjection"),
        "Dinov2": ("dinov2", "Dinov2WithRegistersModel"),
    }[kind]
    source = tmp_path / "saved"
    getattr(transformers, name).from_pretrained(library / stem).save_pretrained(source)
    convert(ConvertArgs(source=source, output=tmp_path / "jax"))
    convert(ConvertArgs(source=tmp_path / "jax", output=tmp_path / "back"))
    saved = source / "model.safetensors"
    assert (tmp_path / "back/model.safetensors").read_bytes() == saved.read_bytes()
