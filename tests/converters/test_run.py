"""The command: what it takes, what it says about wrong input, that it leaves nothing half done."""

import json
import shutil
import signal
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
from oracles.weight_files import rewrite, to_jax, write_tensors

from converters import ConvertArgs, main
from converters.containers import open_weights
from converters.manifest import EXTRA
from converters.run import convert
from magiccolor_jax.checkpoint import read_config
from magiccolor_jax.tensorfile import TensorFile

FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def copy(release, tmp_path):
    """A release that a test may damage."""
    return shutil.copytree(release, tmp_path / "copy")


def test_a_release_of_safetensors_needs_no_torch(release, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    folder = to_jax(release, tmp_path)
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    for path in release.rglob("*.*"):
        assert (tmp_path / "back" / path.relative_to(release)).read_bytes() == path.read_bytes()


def test_a_dry_run_writes_nothing_and_says_what_it_needs(release, tmp_path, capsys):
    to_jax(release, tmp_path, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().out
    assert (
        "MB of disk" in said and "-> clip_vision, clip_text" in said and "nothing written" in said
    )


def test_everything_that_is_missing_is_named_at_once(copy, tmp_path):
    (copy / "MagicColor/denoising_unet.safetensors").unlink()
    (copy / "sd-vae-ft-mse/config.json").unlink()
    shutil.rmtree(copy / "clip-vit-large-patch14")
    with pytest.raises(FileNotFoundError) as error:
        to_jax(copy, tmp_path)
    assert "MagicColor/denoising_unet: no file of weights" in str(error.value)
    assert "sd-vae-ft-mse/config.json: missing" in str(error.value)
    assert "clip-vit-large-patch14: no file of weights" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_every_file_that_does_not_fit_is_in_one_report(copy, tmp_path):
    guider = copy / "MagicColor/controlnet_sketch/diffusion_pytorch_model.safetensors"
    rewrite(guider, lambda key, array: None if key == "conv_in.bias" else array)
    unet = copy / "MagicColor/denoising_unet.safetensors"
    rewrite(unet, lambda key, array: array.T if key.endswith("to_k.weight") else array)
    config = copy / "sd-vae-ft-mse/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"wings": 2}))
    with pytest.raises(ValueError) as error:
        to_jax(copy, tmp_path)
    text = str(error.value)
    assert "missing  conv_in/bias <- conv_in.bias (16,)" in text
    assert "attn2.to_k.weight: expected (16, 24), got (24, 16)" in text
    assert "wings: unknown field with value 2" in text
    assert "controlnet_sketch/diffusion_pytorch_model.safetensors" in text


def test_an_unknown_tensor_is_not_passed_over(copy, tmp_path):
    path = copy / "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"
    with open_weights(path) as weights:
        tensors = {key: weights.read(key) for key in weights.specs}
    write_tensors(path, tensors | {"lora.weight": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=r"unused   lora.weight \(2,\)"):
        to_jax(copy, tmp_path)


def test_what_only_training_needs_may_be_missing(copy, tmp_path, capsys):
    shutil.rmtree(copy / "controlnet_lineart")
    folder = to_jax(copy, tmp_path)
    assert "init/controlnet_lineart" not in read_config(folder).networks
    assert "controlnet_lineart is not there" in capsys.readouterr().out


def test_a_vision_only_clip_leaves_the_text_to_the_text_encoder(copy, tmp_path, capsys):
    path = copy / "clip-vit-large-patch14/model.safetensors"
    rewrite(path, lambda key, array: array if key.startswith("vis") else None)
    folder = to_jax(copy, tmp_path)
    networks = read_config(folder).networks
    assert "clip_vision" in networks and "clip_text" not in networks
    assert "unconditional token will come from" in capsys.readouterr().out


def test_files_outside_the_release_are_left_and_named(copy, tmp_path, capsys):
    (copy / "Annotators").mkdir()
    (copy / "Annotators/netG.pth").write_bytes(b"x")
    (copy / "stable-diffusion-v1-5/v1-5-pruned.ckpt").write_bytes(b"x")
    folder = to_jax(copy, tmp_path)
    said = capsys.readouterr().out
    assert "Annotators/netG.pth" in said and "v1-5-pruned.ckpt" in said
    assert not (folder / "files/Annotators").exists()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_types_are_kept(copy, tmp_path, dtype):
    source = copy / "MagicColor/controlnet_multi"
    path = source / "diffusion_pytorch_model.safetensors"
    rewrite(path, lambda key, array: array.astype(dtype))
    folder = to_jax(source, tmp_path)
    assert {s.dtype for s in TensorFile(folder / "controlnet.safetensors").specs.values()} == {
        np.dtype(dtype)
    }
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_old_attention_stored_as_convolutions_comes_back_as_such(copy, tmp_path):
    source = copy / "sd-vae-ft-mse"
    path = source / "diffusion_pytorch_model.safetensors"

    def change(key, array):
        old = key.endswith(("query.weight", "key.weight", "value.weight", "proj_attn.weight"))
        return array[:, :, None, None] if old else array

    rewrite(path, change)
    folder = to_jax(source, tmp_path)
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def shard(folder, name="diffusion_pytorch_model.safetensors"):
    """Splits a folder's file in two with an index."""
    with open_weights(folder / name) as weights:
        tensors = {key: weights.read(key) for key in weights.specs}
    (folder / name).unlink()
    placed, stem = {}, name.removesuffix(".safetensors")
    for part in range(2):
        shard_name = f"{stem}-{part + 1:05}-of-00002.safetensors"
        held = {key: t for i, (key, t) in enumerate(tensors.items()) if i % 2 == part}
        write_tensors(folder / shard_name, held)
        placed |= dict.fromkeys(held, shard_name)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / f"{name}.index.json").write_text(json.dumps(index))


def test_shards_convert_and_come_back_as_shards(copy, release, tmp_path):
    source = copy / "stable-diffusion-v1-5/unet"
    shard(source)
    folder = to_jax(source, tmp_path)
    whole = to_jax(release / "stable-diffusion-v1-5/unet", tmp_path / "whole")
    assert (folder / "unet.safetensors").read_bytes()[8:] == (
        whole / "unet.safetensors"
    ).read_bytes()[8:]
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    assert {p.name: p.read_bytes() for p in source.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()
    }


def test_missing_shards_and_wrong_indexes_are_told(copy, tmp_path):
    source = copy / "stable-diffusion-v1-5/unet"
    shard(source)
    index = source / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"]))
    index.write_text(json.dumps(content | {"weight_map": content["weight_map"] | {first: "other"}}))
    with pytest.raises(FileNotFoundError, match="shards are missing: .*other"):
        to_jax(source, tmp_path)
    del content["weight_map"][first]
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not agree with its shards"):
        to_jax(source, tmp_path)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("stable-diffusion-v1-5", "expected the release's folder, a JAX folder, or one network's"),
        ("MagicColor", "the folder above looks like the release"),
        ("nowhere", "no such file or folder"),
    ],
)
def test_a_wrong_folder_is_told(release, tmp_path, where, message):
    with pytest.raises(FileNotFoundError, match=message):
        to_jax(release / where, tmp_path)


def test_an_unknown_network_is_told(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"what.weight": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match=r"no network that we have \(what.weight"):
        to_jax(tmp_path / "x.safetensors", tmp_path)


def test_a_single_file_may_bring_its_config(release, tmp_path):
    source = release / "MagicColor/reference_unet.safetensors"
    with pytest.raises(ValueError, match="official sizes were assumed.*--config"):
        to_jax(source, tmp_path)
    config = release / "stable-diffusion-v1-5/unet/config.json"
    folder = to_jax(release / "MagicColor/denoising_unet.safetensors", tmp_path, config=config)
    assert read_config(folder).networks["unet"].channels == (16, 32, 32, 32)


def test_an_existing_output_is_not_touched(release, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="must not exist yet"):
        to_jax(release, tmp_path)


def test_too_little_disk_is_told_before_anything_is_written(release, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(OSError, match=r"needs .* MB of disk, but .* has 1.0 MB free"):
        to_jax(release, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing(release, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("converters.to_jax.write_manifest", fail)
    with pytest.raises(OSError, match="no space left"):
        to_jax(release / "sd-vae-ft-mse", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_no_output(release, tmp_path, number):
    slow = (
        "import signal, sys, time, converters, converters.to_jax as t\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job of a shell ignores it
        "write = t._write_source\n"
        "def slowly(folder, source, extra, arena, advance):\n"
        "    write(folder, source, extra, arena, advance)\n"
        "    print('written', flush=True)\n"
        "    while True:\n        arena.clear()\n        time.sleep(0.01)\n"
        "t._write_source = slowly\n"
        "from pathlib import Path\n"
        "sys.exit(converters.main(converters.ConvertArgs(source=Path(sys.argv[1]), "
        "output=Path(sys.argv[2]))))\n"
    )
    command = [sys.executable, "-c", slow, str(release / "sd-vae-ft-mse"), str(tmp_path / "out")]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as process:
        while process.stdout.readline() != "written\n":
            assert process.poll() is None
        process.send_signal(number)
    assert process.returncode != 0
    left = [path.name for path in tmp_path.iterdir()]
    assert "out" not in left
    assert len(left) == (1 if number == signal.SIGKILL else 0)


def test_what_a_killed_run_left_is_named(release, tmp_path, capsys):
    (tmp_path / ".out.abc.tmp").mkdir()
    to_jax(release / "sd-vae-ft-mse", tmp_path)
    assert ".out.abc.tmp is left from an interrupted run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": True}, "--verify goes with a conversion to JAX"),
        ({"kind": "vae"}, "describe a single network"),
    ],
)
def test_options_that_make_no_sense_for_a_jax_folder(release, tmp_path, options, message):
    folder = to_jax(release / "sd-vae-ft-mse", tmp_path)
    with pytest.raises(ValueError, match=message):
        convert(ConvertArgs(source=folder, output=tmp_path / "back", **options))


def test_to_diffusers_from_pytorch_is_told(release, tmp_path):
    with pytest.raises(ValueError, match="convert it to JAX first"):
        to_jax(release, tmp_path, to="diffusers")


@pytest.mark.parametrize("field", ["files", "path"])
def test_a_manifest_that_points_outside_is_refused(release, tmp_path, field):
    folder = to_jax(release / "sd-vae-ft-mse", tmp_path)
    content = json.loads((folder / "manifest.json").read_text())
    if field == "files":
        content["files"] = ["../../config.json"]
    else:
        content["sources"][0]["files"][0]["path"] = "/tmp/weights.bin"
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected paths inside the folder"):
        convert(ConvertArgs(source=folder, output=tmp_path / "back"))


def test_other_weights_of_a_folder_are_left_and_named(copy, tmp_path, capsys):
    (copy / "sd-vae-ft-mse/diffusion_pytorch_model.bin").write_bytes(b"x")
    to_jax(copy / "sd-vae-ft-mse", tmp_path)
    assert "left out: diffusion_pytorch_model.bin" in capsys.readouterr().out


@pytest.mark.torch
def test_a_training_checkpoint_gives_its_weights_and_names_the_rest(release, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    source = release / "MagicColor/denoising_unet.safetensors"
    with open_weights(source) as weights:
        state = {key: torch.from_numpy(weights.read(key)) for key in weights.specs}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.ckpt")
    config = release / "stable-diffusion-v1-5/unet/config.json"
    folder = to_jax(tmp_path / "x.ckpt", tmp_path, config=config)
    assert "x.ckpt: left out, beside the weights: epoch" in capsys.readouterr().out
    convert(ConvertArgs(source=folder, output=tmp_path / "back"))
    back = torch.load(tmp_path / "back/x.ckpt", weights_only=True)
    assert list(back) == ["state_dict"] and list(back["state_dict"]) == list(state)
    assert all(torch.equal(back["state_dict"][key], tensor) for key, tensor in state.items())


def test_damaged_jax_folders_are_told(release, tmp_path):
    folder = to_jax(release / "sd-vae-ft-mse", tmp_path)
    back = ConvertArgs(source=folder, output=tmp_path / "back")
    (folder / EXTRA).rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match=EXTRA):
        convert(back)
    (tmp_path / "kept").rename(folder / EXTRA)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="not a manifest"):
        convert(back)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no manifest.json.*--to diffusers"):
        convert(back)
    convert(ConvertArgs(source=folder, output=tmp_path / "lib", to="diffusers"))
    assert (tmp_path / "lib/vae/config.json").is_file()


def test_main_prints_errors_and_returns_one(tmp_path, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(ConvertArgs(source=tmp_path / "no", output=tmp_path / "out")) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "error:" in capsys.readouterr().err


def test_help_loads_no_jax():
    code = (
        "import sys, converters.command; sys.exit('jax' in sys.modules or 'torch' in sys.modules)"
    )
    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.torch
def test_verify_compares_every_network_with_pytorch(torch_release, tmp_path, capsys):
    pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    to_jax(torch_release, tmp_path, verify=True)
    assert capsys.readouterr().out.count("largest relative difference") == 13


@pytest.mark.slow
@pytest.mark.torch
def test_verify_sees_a_wrong_weight(release, tmp_path, monkeypatch):
    pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from converters import verify

    def damage(plan, folder):
        path = folder / "vae.safetensors"
        data = bytearray(path.read_bytes())
        data[-400:] = bytes(400)
        path.write_bytes(data)
        compare(plan, folder)

    compare = verify.verify
    monkeypatch.setattr(verify, "verify", damage)
    with pytest.raises(ValueError, match="differs from PyTorch by more than"):
        to_jax(release / "sd-vae-ft-mse", tmp_path, verify=True)
