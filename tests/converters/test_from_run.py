"""A training run by `magiccolor convert`: to a model folder, the release's files, and libraries."""

import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.runs import cheap_run, write_start
from oracles.trained import write_run
from oracles.training import DINO
from oracles.weight_files import to_jax

from converters import ConvertArgs
from converters.run import convert, plan_conversion
from converters.told import TOLD
from magiccolor_jax.checkpoint import read_config
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.colorizer import Colorizer
from magiccolor_jax.sampling.pretrained import load_null_contexts
from magiccolor_jax.tensorfile import TensorFile
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.initial import find_origins, first_parameters
from magiccolor_jax.training.setup import plan_training, trained_model
from magiccolor_jax.training.stages import SD15, Stage, stage1, stage2

TARGETS = ("jax", "release", "diffusers")


def files_of(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def same_networks(one, other, names=None):
    """Whether two model folders hold the same networks, bit for bit."""
    models = [read_config(folder).networks for folder in (one, other)]
    names = names or set(models[0]) | set(models[1])
    assert [models[0][name] for name in names] == [models[1][name] for name in names]
    for name in names:
        a, b = (TensorFile(folder / f"{name}.safetensors") for folder in (one, other))
        assert sorted(a.specs) == sorted(b.specs)
        for key in a.specs:
            np.testing.assert_array_equal(a.read(key), b.read(key), err_msg=f"{name}/{key}")
    return True


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run that began with a random model of our own, with two checkpoints, and its model."""
    folder = tmp_path_factory.mktemp("own")
    write_start(folder / "start")
    write_run(cheap_run(folder), {3: 0.25, 6: 0.5})
    convert(ConvertArgs(source=folder / "run", output=folder / "model"))
    return folder


@pytest.fixture(scope="module")
def own_release(own):
    convert(ConvertArgs(source=own / "run", output=own / "release", to="release"))
    return own / "release"


def plain_stage(made: Stage) -> Stage:
    """From the folder's own networks of each name; the nano release has no VGG-19."""
    names = ("denoiser", "reference", "sketch_guider", "instance_guider", "context")
    fields = {f: getattr(made, f) for f in ("name", "trainable", "instances", "instance_guider")}
    origins = tuple((name, name) for name in names)
    return Stage(**fields, origins=origins, losses=LossConfig(perceptual=0.0))


@pytest.fixture(scope="module")
def started(release, tmp_path_factory):
    """A folder of runs of both stages that began with a converted release."""
    folder = tmp_path_factory.mktemp("started")
    convert(ConvertArgs(source=release, output=folder / "start"))
    for made in (stage1(), stage2()):
        out, stage = folder / made.name, plain_stage(made)
        write_run(TrainConfig(out=out, init=folder / "start", stage=stage, average=None), {1: 0.5})
    return folder


def test_a_run_becomes_a_model_to_colour_with(own):
    model = read_config(own / "model")
    assert model.recipe == Recipe.paper() and "vgg19" in model.networks
    kernel = "conv_in/kernel"
    trained, began = (
        TensorFile(own / folder / "denoiser.safetensors").read(kernel)
        for folder in ("model", "start")
    )
    assert not np.array_equal(trained, began)
    assert same_networks(own / "model", own / "start", ("vae", "dinov2", "clip_vision"))


@pytest.mark.parametrize("to", TARGETS)
def test_a_dry_run_tells_every_file_and_writes_none(own, tmp_path, capsys, to):
    convert(ConvertArgs(source=own / "run", output=tmp_path / "out", to=to, dry_run=True))
    said = capsys.readouterr().out
    names = {
        "jax": ["denoiser.safetensors ", "instance_guider.safetensors ", "by hard links"],
        "release": ["MagicColor/denoising_unet.pth ", "dinov2_vitl14_reg4_pretrain.pth "],
        "diffusers": ["sketch_guider/diffusion_pytorch_model.safetensors ", "clip_text/model"],
    }
    assert all(name in said for name in names[to]) and "MB of disk" in said
    assert "nothing written" in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("checkpoint", "step"), [(None, 6), ("best", 3), ("3", 3)])
def test_a_checkpoint_may_be_chosen(own, tmp_path, checkpoint, step):
    convert(ConvertArgs(source=own / "run", output=tmp_path / "out", checkpoint=checkpoint))
    assert (step == 6) == (
        (tmp_path / "out/denoiser.safetensors").read_bytes()
        == (own / "model/denoiser.safetensors").read_bytes()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "5"}, r"expected checkpoint '5', got \[3, 6\]"),
        ({"verify": True}, "--verify goes with a conversion to JAX, and SOURCE is a training run"),
        ({"kind": "unet"}, "describe a single network"),
    ],
)
def test_options_that_do_not_fit_a_run(own, tmp_path, options, message):
    if "verify" in options:
        pytest.importorskip("diffusers")
    with pytest.raises((ValueError, OSError), match=message):
        convert(ConvertArgs(source=own / "run", output=tmp_path / "out", **options))


def test_options_that_need_a_run(own, release, tmp_path):
    for source in (own / "model", release):
        with pytest.raises(ValueError, match="--checkpoint goes with a training run"):
            convert(ConvertArgs(source=source, output=tmp_path / "out", checkpoint="best"))
    with pytest.raises(ValueError, match="is a JAX folder"):
        convert(ConvertArgs(source=own / "model", output=tmp_path / "out", to="jax"))


def test_a_failure_leaves_nothing(own, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("converters.to_torch.write_weights", fail)
    with pytest.raises(OSError, match="no space left"):
        convert(ConvertArgs(source=own / "run", output=tmp_path / "out", to="release"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.torch
def test_a_model_of_our_own_gets_the_release_names_and_comes_back(own, own_release, tmp_path):
    """`.pth` files are read by PyTorch."""
    pytest.importorskip("torch")
    assert sorted(files_of(own_release)) == sorted(
        [
            *(f"MagicColor/{name}_unet.pth" for name in ("denoising", "reference")),
            *(
                f"{folder}/{name}"
                for folder in ("MagicColor/controlnet_sketch", "MagicColor/controlnet_multi")
                for name in ("config.json", "diffusion_pytorch_model.safetensors")
            ),
            "sd-vae-ft-mse/config.json",
            "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
            "clip-vit-large-patch14/config.json",
            "clip-vit-large-patch14/model.safetensors",
            "stable-diffusion-v1-5/text_encoder/config.json",
            "stable-diffusion-v1-5/text_encoder/model.safetensors",
            "stable-diffusion-v1-5/unet/config.json",
            "stable-diffusion-v1-5/scheduler/scheduler_config.json",
            "dinov2_vitl14_reg4_pretrain.pth",
            "dinov2_vitl14_reg4_pretrain.json",
            "vgg19-features.pth",
            TOLD,
        ]
    )
    again = to_jax(own_release, tmp_path)
    assert same_networks(again, own / "model")
    assert read_config(again) == read_config(own / "model")
    convert(ConvertArgs(source=again, output=tmp_path / "twice"))
    assert files_of(tmp_path / "twice").keys() == files_of(own_release).keys()
    for name, path in files_of(own_release).items():
        assert (tmp_path / "twice" / name).read_bytes() == path.read_bytes(), name


def test_what_the_release_does_not_say_is_told(own, tmp_path, capsys):
    convert(ConvertArgs(source=own / "run", output=tmp_path / "x", to="release", dry_run=True))
    said = capsys.readouterr().out
    assert f"{TOLD}: only our converter reads it, for recipe paper" in said
    assert "stable-diffusion-v1-5/tokenizer: no part of this model" in said


@pytest.mark.slow
def test_a_schedule_of_its_own_travels(started, release, tmp_path):
    """The download's file of the schedule goes back as it came only where it is still true."""
    model = shutil.copytree(started / "start", tmp_path / "model")
    content = (model / "config.json").read_text()
    (model / "config.json").write_text(content.replace('"epsilon"', '"v_prediction"'))
    convert(ConvertArgs(source=model, output=tmp_path / "release"))
    name = "stable-diffusion-v1-5/scheduler/scheduler_config.json"
    assert files_of(tmp_path / "release").keys() == files_of(release).keys()
    assert json.loads((tmp_path / "release" / name).read_text())["prediction_type"] == (
        "v_prediction"
    )
    assert read_config(to_jax(tmp_path / "release", tmp_path)) == read_config(model)


@pytest.mark.slow
def test_a_release_that_was_trained_goes_back_into_its_files(release, started, tmp_path):
    run = started / "stage2"
    convert(ConvertArgs(source=run, output=tmp_path / "release", to="release"))
    convert(ConvertArgs(source=run, output=tmp_path / "model"))
    before, after = files_of(release), files_of(tmp_path / "release")
    init = ("stable-diffusion-v1-5/unet/d", "stable-diffusion-v1-5/vae/", "controlnet_lineart/")
    assert sorted(after) == sorted([TOLD, *(name for name in before if not name.startswith(init))])
    others = {name for name in before if name in after}
    changed = {name for name in others if after[name].read_bytes() != before[name].read_bytes()}
    assert changed == {
        name for name in after if name.startswith("MagicColor/") and name.endswith(".safetensors")
    }
    again = to_jax(tmp_path / "release", tmp_path)
    assert same_networks(again, tmp_path / "model")
    assert read_config(again) == read_config(tmp_path / "model")
    assert "conv_out.weight" in TensorFile(after["MagicColor/reference_unet.safetensors"]).specs


@pytest.mark.slow
def test_stage_one_leaves_out_what_it_does_not_have(started, tmp_path):
    args = ConvertArgs(source=started / "stage1", output=tmp_path / "out", to="release")
    plan = plan_conversion(args)
    names = [*(file.record.path for file in plan.files), *plan.copies, *plan.texts]
    assert "MagicColor/denoising_unet.safetensors" in names
    assert not [name for name in names if "controlnet_multi" in name or "lineart" in name]
    assert "stable-diffusion-v1-5/unet/config.json" in names, "the sizes of both UNets"
    said = "\n".join(plan.notes)
    assert "left out, this model has no init/unet" in said
    assert "MagicColor/controlnet_multi: this model has no instance_guider" in said


@pytest.fixture(scope="module")
def start(release, tmp_path_factory):
    """A model folder of a download without MagicColor, and the download."""
    folder = tmp_path_factory.mktemp("download")
    shutil.copytree(release, folder / "ckpt", ignore=shutil.ignore_patterns("MagicColor"))
    convert(ConvertArgs(source=folder / "ckpt", output=folder / "model"))
    return folder


def test_a_download_without_magiccolor_is_a_start(start, tmp_path, capsys):
    to_jax(start / "ckpt", tmp_path, dry_run=True)
    assert "no MagicColor weights: a start for training, not for colouring" in (
        capsys.readouterr().out
    )
    networks = read_config(start / "model").networks
    assert {"init/unet", "init/controlnet_lineart", "vae", "dinov2"} <= set(networks)
    assert "denoiser" not in networks
    with pytest.raises(ValueError, match=r"config.json lacks \['denoiser', 'sketch_guider'\]"):
        Colorizer.from_pretrained(start / "model")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("stable-diffusion-v1-5/unet", "stable-diffusion-v1-5/unet: no file of weights"),
        ("sd-vae-ft-mse", "sd-vae-ft-mse: no file of weights"),
    ],
)
def test_a_start_must_be_whole_too(start, tmp_path, lost, message):
    copy = shutil.copytree(start / "ckpt", tmp_path / "copy")
    shutil.rmtree(copy / lost)
    with pytest.raises(FileNotFoundError, match=message) as error:
        to_jax(copy, tmp_path)
    assert "MagicColor/" not in str(error.value)


def test_half_of_magiccolor_is_no_start(start, release, tmp_path):
    copy = shutil.copytree(start / "ckpt", tmp_path / "copy")
    shutil.copytree(release / "MagicColor/controlnet_sketch", copy / "MagicColor/controlnet_sketch")
    with pytest.raises(FileNotFoundError, match="MagicColor/denoising_unet: no file of weights"):
        to_jax(copy, tmp_path)


@pytest.fixture(scope="module")
def begun(start):
    """(plan, where values lie) of stage 2's networks from stage 1's origins: every rule of SD15."""
    fields = {f: getattr(stage2(), f) for f in ("trainable", "instances", "instance_guider")}
    losses = LossConfig(perceptual=0.0)  # the download has no VGG-19
    stage = Stage(name="both", origins=SD15, losses=losses, **fields)
    plan = plan_training(TrainConfig(out=start / "run", init=start / "model", stage=stage))
    shapes = {path: leaf.shape for path, leaf in plan.design.parameters.items()}
    found = find_origins(start / "model", plan.source, stage, shapes)
    return plan, {path: found.get(path) for path in shapes}


def of(name, places):
    return {path: place for path, place in places.items() if path.startswith(f"{name}/")}


def test_training_starts_from_stable_diffusion_and_a_controlnet(start, begun):
    plan, places = begun
    unet, lineart = (
        start / f"model/init/{name}.safetensors" for name in ("unet", "controlnet_lineart")
    )
    for name, file in (("denoiser", unet), ("reference", unet), ("sketch_guider", lineart)):
        assert {place and place.file for place in of(name, places).values()} == {file}
    multi = of("instance_guider", places)
    encoder = ("conv_in", "time_embedding", "down_blocks", "mid_block")
    assert {path for path, place in multi.items() if place} == {
        path for path in multi if path.split("/")[1] in encoder
    }
    assert {place.file for place in multi.values() if place} == {unet}
    assert plan.design.sizes.instance_guider.conditioning_channels == DINO


@pytest.mark.slow
def test_what_no_file_has_is_drawn_without_effect(begun, compile_quickly):
    """Slow: compiles the drawing of all networks."""
    plan, places = begun
    shardings = plan.design.parameter_shardings()
    found = {path: place for path, place in places.items() if place}
    shapes = {path: leaf.shape for path, leaf in plan.design.parameters.items()}
    values = first_parameters(shapes, found, shardings, jnp.float32, 0)
    multi = of("instance_guider", places)
    drawn = {path: np.asarray(values[path]) for path, place in multi.items() if not place}
    kernels = {path: value for path, value in drawn.items() if path.endswith("kernel")}
    zero = r"instance_guider/(controlnet_(down|mid)_block|controlnet_cond_embedding/conv_out).*"
    assert {path for path, value in kernels.items() if not value.any()} == {
        path for path in kernels if re.match(zero, path)
    }
    assert drawn["instance_guider/dino_adapter/0/kernel"].std() > 0.01
    for path in ("denoiser/conv_in/kernel", "instance_guider/mid_block/resnets/0/conv1/kernel"):
        place = found[path]
        np.testing.assert_array_equal(values[path], TensorFile(place.file).read(place.key))


def test_a_start_has_the_null_contexts_that_training_reads(start, tmp_path):
    """Its config.json names no denoiser, whose width recipe `dinov2` asks for."""
    for recipe in (Recipe.paper(), Recipe(context="dinov2")):
        config = TrainConfig(out=tmp_path / "run", init=start / "model", recipe=recipe)
        stage = replace(config.stage, losses=LossConfig(perceptual=0.0))
        plan = plan_training(replace(config, stage=stage))
        nulls = load_null_contexts(start / "model", trained_model(plan), recipe)
        assert jax.tree.leaves(nulls)[0].shape == (1, 1, plan.design.sizes.denoiser.context)
