"""What the release's files cannot say lies beside them: a model comes back whole, or not at all."""

import json
import shutil

import pytest
from flax import nnx
from oracles.runs import write_start
from oracles.weight_files import to_jax

from converters import ConvertArgs
from converters.plan import Plan
from converters.run import convert, plan_conversion
from converters.to_torch import Export
from converters.told import TOLD
from magiccolor_jax.checkpoint import ModelConfig, read_config, save_network, write_config
from magiccolor_jax.models.context import ContextConfig, ContextEncoder


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A random model of our own."""
    folder = tmp_path_factory.mktemp("ours") / "model"
    write_start(folder)
    return folder


@pytest.fixture(scope="module")
def release(ours, tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("release") / "ckpt"
    convert(ConvertArgs(source=ours, output=folder))
    return folder


@pytest.fixture(scope="module")
def returned(release, tmp_path_factory):
    return to_jax(release, tmp_path_factory.mktemp("returned"))


def edited(folder, copy, name, change):
    """A copy of a folder in which a JSON file says something else."""
    shutil.copytree(folder, copy)
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_text(json.dumps(content))
    return copy


def test_unets_that_do_not_fit_one_config_are_refused(ours, tmp_path):
    def change(content):
        content["networks"]["reference"]["heads"] *= 2

    model = edited(ours, tmp_path / "model", "config.json", change)
    message = "denoiser and reference share one stable-diffusion-v1-5/unet/config.json"
    with pytest.raises(ValueError, match=message):
        convert(ConvertArgs(source=model, output=tmp_path / "out"))


def otherwise(content):
    """Another model of the same weights, in every way that the release's files tell or do not."""
    networks = content["networks"]
    for name in ("denoiser", "reference", "sketch_guider", "instance_guider"):
        networks[name]["heads"] //= 2
    networks["vae"]["scaling_factor"] = 0.5
    networks["vgg19"]["layers"] = ["relu1_1", "relu2_1"]
    content["sizes"] |= {"page": 64, "canvas": 192}
    content["schedule"]["prediction_type"] = "v_prediction"
    content["sampling"]["steps"] = 7
    content["recipe"] = "release"


@pytest.mark.torch
@pytest.mark.parametrize("source", ["model", "returned"])
def test_an_edited_model_comes_back_as_it_is(ours, returned, tmp_path, source):
    """Of our own, or one whose small files say what it was before."""
    folder = ours if source == "model" else returned
    model = edited(folder, tmp_path / "edited", "config.json", otherwise)
    convert(ConvertArgs(source=model, output=tmp_path / "release"))
    plan = plan_conversion(ConvertArgs(source=tmp_path / "release", output=tmp_path / "x"))
    assert isinstance(plan, Plan) and plan.model == read_config(model)


def test_what_has_no_file_is_left_out_and_named(ours, tmp_path):
    def change(content):
        networks = content["networks"]
        networks["other"] = networks["vae"]
        networks["reference"]["out_channels"] += 8
        del networks["clip_vision"]

    model = edited(ours, tmp_path / "model", "config.json", change)
    shutil.copy(model / "vae.safetensors", model / "other.safetensors")
    plan = plan_conversion(ConvertArgs(source=model, output=tmp_path / "out"))
    assert isinstance(plan, Export)
    for stem in ("other", "clip_text"):
        assert f"{stem}: left out, the release has no file for it" in plan.notes
    told = json.loads(plan.texts[TOLD])["networks"]
    assert not {"other", "clip_text", "clip_vision"} & told.keys()
    assert told["reference"]["out_channels"] == told["denoiser"]["out_channels"]


@pytest.mark.torch
def test_a_part_of_a_model_does_not_tell_of_the_whole(returned, tmp_path):
    part = edited(
        returned,
        tmp_path / "part",
        "config.json",
        lambda content: content["networks"].pop("sketch_guider"),
    )
    plan = plan_conversion(ConvertArgs(source=part, output=tmp_path / "out"))
    assert isinstance(plan, Export) and TOLD not in {*plan.copies, *plan.texts}


@pytest.mark.torch
def test_the_small_file_alone_may_be_damaged(release, returned, tmp_path):
    """It is written anew."""
    model = shutil.copytree(returned, tmp_path / "model")
    (model / "files" / TOLD).write_text("{")
    plan = plan_conversion(ConvertArgs(source=model, output=tmp_path / "out"))
    assert isinstance(plan, Export)
    assert plan.texts[TOLD] == (release / TOLD).read_text()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "sd-vae-ft-mse/config.json",
            {"scaling_factor": 0.5},
            r"  vae: expected scaling_factor [\d.]+, got 0.5\n.*`--to release` writes this file",
        ),
        (
            "stable-diffusion-v1-5/scheduler/scheduler_config.json",
            {"steps_offset": 0},
            "  schedule: expected steps_offset 1, got 0\n",
        ),
        (
            "stable-diffusion-v1-5/unet/config.json",
            {"sample_size": 99},
            "page: expected .*, got 792",
        ),
        (TOLD, {"recipe": "papier"}, f"{TOLD}: recipe: expected one of"),
        (TOLD, {"format": "other"}, f"{TOLD}: expected a magiccolor_jax model.*`--to release`"),
        (TOLD, {"networks": {}}, "expected denoiser, sketch_guider, denoiser, sketch_guider not"),
    ],
)
def test_what_is_told_must_agree_with_the_files(release, tmp_path, name, change, message):
    copy = edited(release, tmp_path / "copy", name, lambda content: content.update(change))
    with pytest.raises(ValueError, match=message):
        to_jax(copy, tmp_path, dry_run=True)


@pytest.mark.torch
def test_a_network_of_another_kind_is_named(release, tmp_path):
    def change(content):
        content["networks"]["vgg19"] = content["networks"]["vae"]

    copy = edited(release, tmp_path / "copy", TOLD, change)
    with pytest.raises(ValueError, match=r"  vgg19: expected VAEConfig\(.*, got VGG19Config\("):
        to_jax(copy, tmp_path, dry_run=True)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("lost", "error", "message"),
    [
        ("sd-vae-ft-mse", FileNotFoundError, "sd-vae-ft-mse: no file of weights"),
        ("vgg19-features.pth", ValueError, "vgg19: expected a file of weights, got none"),
    ],
)
def test_what_is_told_must_be_there(release, tmp_path, lost, error, message):
    copy = shutil.copytree(release, tmp_path / "copy")
    path = copy / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(error, match=message):
        to_jax(copy, tmp_path, dry_run=True)


@pytest.mark.torch
def test_what_is_told_must_be_a_file(release, tmp_path):
    copy = shutil.copytree(release, tmp_path / "copy")
    (copy / TOLD).unlink()
    (copy / TOLD).symlink_to("nowhere")
    with pytest.raises(ValueError, match=f"{TOLD}: must be a file"):
        to_jax(copy, tmp_path, dry_run=True)


@pytest.mark.torch
def test_the_contexts_network_goes_with_what_is_told(release, tmp_path):
    """Without it, nobody would know that the recipe wants this network."""
    copy = shutil.copytree(release, tmp_path / "copy")
    (copy / TOLD).unlink()
    shutil.copy(copy / "MagicColor/reference_unet.pth", copy / "MagicColor/context.pth")
    with pytest.raises(FileNotFoundError, match=f"{TOLD}: missing\n.*\n{TOLD}: .*`--to release`"):
        to_jax(copy, tmp_path, dry_run=True)


@pytest.mark.torch
def test_the_contexts_network_may_travel_alone(tmp_path, capsys):
    config = ContextConfig.nano()
    network = ContextEncoder(config, rngs=nnx.Rngs(0))
    model = tmp_path / "model"
    model.mkdir()
    save_network(model / "context.safetensors", network)
    write_config(model, ModelConfig(networks={"context": config}))
    convert(ConvertArgs(source=model, output=tmp_path / "out", to="diffusers"))
    assert "context: no library loads it" in capsys.readouterr().out
    for source in ("out/context", "out/context/model.safetensors"):
        plan = plan_conversion(ConvertArgs(source=tmp_path / source, output=tmp_path / "x"))
        assert isinstance(plan, Plan) and plan.model.networks == {"context": config}
