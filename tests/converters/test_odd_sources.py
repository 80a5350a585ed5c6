"""Sources that are laid out, named or damaged in ways of their own."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
from oracles.weight_files import rewrite, to_jax, write_tensors

from converters import ConvertArgs, verify
from converters.containers import open_weights
from converters.run import convert
from converters.torchfile import from_numpy
from magiccolor_jax.checkpoint import read_config
from magiccolor_jax.tensorfile import TensorFile


@pytest.fixture
def copy(release, tmp_path):
    """A release that a test may damage."""
    return shutil.copytree(release, tmp_path / "copy")


def files_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_linked_folders_and_hidden_files_come_back(release, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for entry in release.iterdir():
        (linked / entry.name).symlink_to(entry)
    (linked / ".gitattributes").write_text("*.bin filter=lfs\n")
    (linked / ".cache").mkdir()
    (linked / ".cache/index.json").write_text("{}")
    convert(ConvertArgs(source=to_jax(linked, tmp_path), output=tmp_path / "back"))
    expected = {
        path: data for path, data in files_below(release).items() if path.suffix != ".safetensors"
    }
    found = files_below(tmp_path / "back")
    assert found.items() >= expected.items() and len(expected) > 10
    assert ".gitattributes" in map(str, found) and not (tmp_path / "back/.cache").exists()


def test_a_link_to_itself_ends(copy, tmp_path):
    (copy / "sd-vae-ft-mse/again").symlink_to(copy)
    assert read_config(to_jax(copy, tmp_path)).networks


def test_half_precision_shards_have_an_index_of_another_name(copy, tmp_path):
    source = copy / "stable-diffusion-v1-5/unet"
    whole = source / "diffusion_pytorch_model.safetensors"
    part = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"
    rewrite(whole, lambda key, array: array.astype(np.float16))
    placed = dict.fromkeys(TensorFile(whole).specs, part)
    whole.rename(source / part)
    index = source / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    convert(ConvertArgs(source=to_jax(source, tmp_path), output=tmp_path / "back"))
    assert files_below(tmp_path / "back") == files_below(source)


@pytest.mark.parametrize("placed", [5, None, "../elsewhere", ""])
def test_an_index_names_files_beside_it(copy, tmp_path, placed):
    source = copy / "stable-diffusion-v1-5/unet"
    (source / "diffusion_pytorch_model.safetensors").unlink()
    index = source / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": placed}}))
    with pytest.raises(ValueError, match="the name of a file beside it"):
        to_jax(source, tmp_path)


def test_what_is_missing_and_what_does_not_fit_are_one_report(copy, tmp_path):
    (copy / "MagicColor/denoising_unet.safetensors").unlink()
    guider = copy / "MagicColor/controlnet_sketch/diffusion_pytorch_model.safetensors"
    rewrite(guider, lambda key, array: None if key == "conv_in.bias" else array)
    unet = copy / "stable-diffusion-v1-5/unet"
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    config = unet / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": -1}))
    scheduler = copy / "stable-diffusion-v1-5/scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps({"beta_start": None, "num_train_timesteps": 1000.5}))
    text = copy / "stable-diffusion-v1-5/text_encoder/config.json"
    text.write_text(json.dumps(json.loads(text.read_text()) | {"hidden_size": None}))
    with pytest.raises(FileNotFoundError) as error:
        to_jax(copy, tmp_path)
    said = str(error.value)
    assert "denoising_unet: no file of weights" in said
    assert "missing  conv_in/bias" in said
    assert "gone.safetensors" in said
    assert f"{config}: sample_size" in said
    assert f"{scheduler}: scheduler config" in said
    assert "beta_start: expected" in said and "num_train_timesteps: expected" in said
    assert f"{text}: CLIP text config" in said


def test_dinov2_may_be_a_folder_of_transformers(copy, release, tmp_path):
    hub, folder = copy / "dinov2_vitl14_reg4_pretrain", copy / "dinov2_vitl14_reg4_pretrain"
    to_jax(release, tmp_path / "first")
    convert(
        ConvertArgs(source=tmp_path / "first/out", output=tmp_path / "libraries", to="diffusers")
    )
    for suffix in (".safetensors", ".json"):
        hub.with_suffix(suffix).unlink()
    shutil.copytree(tmp_path / "libraries/dinov2", folder)
    again = to_jax(copy, tmp_path)
    first = tmp_path / "first/out"
    assert read_config(again).networks["dinov2"] == read_config(first).networks["dinov2"]
    theirs, ours = (TensorFile(f / "dinov2.safetensors") for f in (first, again))
    assert all((theirs.read(k) == ours.read(k)).all() for k in theirs.specs)


def test_a_reference_unet_by_itself_keeps_its_unused_head(release, tmp_path, capsys):
    source = release / "MagicColor/reference_unet.safetensors"
    config = release / "stable-diffusion-v1-5/unet/config.json"
    folder = to_jax(source, tmp_path, config=config)
    assert not read_config(folder).networks["unet"].head
    assert "taken for a reference UNet" in capsys.readouterr().out
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    assert (tmp_path / "back" / source.name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", ["clip_text", "clip_vision"])
def test_either_tower_of_a_combined_file_brings_the_other(release, tmp_path, kind):
    folder = to_jax(release / "clip-vit-large-patch14", tmp_path, kind=kind)
    assert set(read_config(folder).networks) == {"clip_vision", "clip_text"}


def test_safetensors_are_known_by_their_content(release, tmp_path):
    source = tmp_path / "vae"
    shutil.copytree(release / "sd-vae-ft-mse", source)
    name = "diffusion_pytorch_model.bin"
    (source / "diffusion_pytorch_model.safetensors").rename(source / name)
    convert(ConvertArgs(source=to_jax(source, tmp_path), output=tmp_path / "back"))
    assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.out.2.bias",
        "encoder.down.0.block.0.conv1.bias",
        "input_blocks.0.bias",
    ],
)
def test_latent_diffusions_names_have_an_error_of_their_own(tmp_path, key):
    write_tensors(tmp_path / "x.safetensors", {key: np.ones(1, np.float32)})
    with pytest.raises(ValueError, match="key names of Latent Diffusion"):
        to_jax(tmp_path / "x.safetensors", tmp_path)


def damaged(folder, change):
    """`change(tensors)` of one file of a JAX folder."""
    path = folder / "vae.safetensors"
    with open_weights(path) as weights:
        tensors = {key: weights.read(key) for key in weights.specs}
    write_tensors(path, change(tensors))


@pytest.mark.parametrize("to", ["release", "diffusers"])
def test_a_damaged_jax_folder_is_not_exported(release, tmp_path, to):
    folder = to_jax(release, tmp_path)
    damaged(folder, lambda t: t | {"conv_in/kernel": np.ones(2, np.float32)})
    denoiser = folder / "denoiser.safetensors"
    rewrite(denoiser, lambda key, array: None if key == "conv_in/bias" else array[..., :1])
    with pytest.raises(ValueError) as error:
        convert(ConvertArgs(source=folder, output=tmp_path / "back", to=to, dry_run=True))
    said = str(error.value)
    assert "unexpected  conv_in/kernel" in said and "missing     conv_in/bias" in said
    assert "conv_in/kernel: expected (3, 3, 4, 16), got (3, 3, 4, 1)" in said


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F32"}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}},
    ],
)
def test_a_damaged_header_is_told(tmp_path, header):
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"0000")
    with pytest.raises(ValueError, match="x.safetensors: the .*header"):
        TensorFile(path)


def test_the_output_may_not_be_hidden_or_inside_the_source(release, copy, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="must not exist yet"):
        to_jax(release, tmp_path)
    with pytest.raises(ValueError, match="must lie outside of SOURCE"):
        convert(ConvertArgs(source=copy, output=copy / "MagicColor/jax"))


def test_the_need_of_disk_is_not_understated(release, tmp_path, capsys):
    folder = to_jax(release / "sd-vae-ft-mse", tmp_path)
    said = capsys.readouterr().out
    needed = float(said.partition("needs ")[2].split()[0]) * 1e6
    assert needed >= sum(os.stat(path).st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.torch
def test_torch_files_that_are_no_weights_say_what_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({0: from_numpy(np.ones(2, np.float32))}, tmp_path / "numbered.pth")
    with pytest.raises(ValueError, match="no named tensors"):
        open_weights(tmp_path / "numbered.pth")
    torch.save({"optimizer": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"would run code from inside it \(\S*print\)"):
        open_weights(tmp_path / "code.pth")


def test_verify_sees_nan_and_other_shapes(tmp_path):
    def difference(ours, theirs):
        for side, arrays in (("jax", ours), ("torch", theirs)):
            np.savez(verify.result_path(tmp_path, side, "net"), **arrays)
        return verify.differences(tmp_path, "net")

    ones = np.ones(3)
    assert difference({"a": ones, "b": ones + 0.5}, {"a": ones, "b": ones}) == {"a": 0, "b": 0.5}
    gone = difference({"a": ones, "b": np.array([1, np.nan, 1])}, {"a": ones, "b": ones})
    assert gone["a"] == 0 and np.isnan(gone["b"])
    with pytest.raises(ValueError, match="outputs"):
        difference({"a": np.ones(1)}, {"a": ones})
    with pytest.raises(ValueError, match="outputs"):
        difference({"a": ones}, {"a": ones, "b": ones})
