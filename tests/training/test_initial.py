"""What a training starts from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from oracles.nano_model import write_nano_model
from oracles.runs import small_stage, write_start
from oracles.training import SMALL, small_config

from magiccolor_jax.checkpoint import read_config, write_config
from magiccolor_jax.losses.objective import LossConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.parallel.sharding import train_mesh
from magiccolor_jax.precision import Precision
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.tensorfile import TensorFile, TensorFileWriter
from magiccolor_jax.training.config import TrainConfig
from magiccolor_jax.training.initial import (
    LACKED,
    Stored,
    find_origins,
    first_parameters,
    load_frozen,
    model_config,
    model_shapes,
)
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.stages import RANDOM, SD15, stage1, stage2

BOTH = dataclasses.replace(stage2(), origins=SD15)
F32 = Precision(jnp.float32, jnp.float32)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    """As a converted download without MagicColor's weights: `init/` alone can be trained."""
    folder = tmp_path_factory.mktemp("sd15") / "model"
    unet = UNetConfig(**SMALL)
    lineart = ControlNetConfig(**SMALL, embedding_channels=(8, 8, 8, 16))
    (folder / "init").mkdir(parents=True)
    made = {"init/unet": unet, "init/controlnet_lineart": lineart}
    write_nano_model(folder, small_config(), **made)
    config = read_config(folder)
    own = {name for name, cfg in vars(small_config()).items() if cfg is not None}
    rest = {name: cfg for name, cfg in config.networks.items() if name not in own}
    write_config(folder, dataclasses.replace(config, networks=rest))
    return folder


def origins_of(folder, stage, recipe=None):
    recipe = recipe or Recipe.paper()
    source = read_config(folder)
    sizes = model_config(folder, source, recipe, stage)
    return sizes, find_origins(folder, source, stage, model_shapes(sizes))


def test_stable_diffusion_and_a_controlnet(sd15):
    sizes, found = origins_of(sd15, BOTH)
    assert sizes == small_config()
    shapes = model_shapes(sizes)
    files = {"denoiser": "unet", "reference": "unet", "instance_guider": "unet"}
    for path in shapes:
        network, key = path.split("/", 1)
        name = files.get(network, "controlnet_lineart")
        if network == "instance_guider" and LACKED[UNetConfig].fullmatch(key):
            assert path not in found
        else:
            assert found[path] == Stored(sd15 / f"init/{name}.safetensors", key)


def without(folder, *names):
    """A folder's config.json without some networks."""
    config = read_config(folder)
    kept = {name: cfg for name, cfg in config.networks.items() if name not in names}
    return dataclasses.replace(config, networks=kept)


def test_stage_two_goes_on_from_stage_one(start):
    source = without(start, "instance_guider")
    sizes = model_config(start, source, Recipe.paper(), stage2())
    found = find_origins(start, source, stage2(), model_shapes(sizes))
    assert found["reference/conv_in/kernel"].file.name == "reference.safetensors"
    assert (
        found["sketch_guider/controlnet_mid_block/kernel"].file.name == "sketch_guider.safetensors"
    )
    assert found["instance_guider/mid_block/resnets/0/conv1/kernel"].file.stem == "denoiser"
    assert "instance_guider/controlnet_mid_block/kernel" not in found


def test_stage_two_goes_on_from_stage_two(start):
    """Nothing that was trained is drawn anew."""
    sizes, found = origins_of(start, stage2())
    assert found.keys() == model_shapes(sizes).keys()
    assert {path.split("/")[0]: place.file.stem for path, place in found.items()} == {
        name: name for name in ("denoiser", "reference", "sketch_guider", "instance_guider")
    }


def test_stage_one_goes_on_from_stage_one_where_there_is_no_stable_diffusion(start, sd15):
    _, found = origins_of(start, stage1())
    assert {place.file.stem for place in found.values()} == {
        "denoiser",
        "reference",
        "sketch_guider",
    }
    _, found = origins_of(sd15, stage1())
    assert {place.file.stem for place in found.values()} == {"unet", "controlnet_lineart"}


def parameters(folder, stage, seed=0, dtype=jnp.float32):
    sizes, found = origins_of(folder, stage)
    here = SingleDeviceSharding(jax.local_devices()[0])
    shapes = model_shapes(sizes)
    return found, first_parameters(shapes, found, dict.fromkeys(shapes, here), dtype, seed)


def test_values_are_read_and_the_rest_is_drawn(sd15):
    found, values = parameters(sd15, BOTH)
    for path, (file, key) in list(found.items())[::17]:
        np.testing.assert_array_equal(values[path], TensorFile(file).read(key))
    drawn = {path for path in values if path not in found}
    silent = {path for path in drawn if not np.any(values[path])}
    assert "instance_guider/controlnet_mid_block/kernel" in silent
    assert "instance_guider/controlnet_cond_embedding/conv_out/kernel" in silent
    assert "instance_guider/dino_adapter/0/kernel" in drawn - silent
    assert "instance_guider/controlnet_cond_embedding/conv_in/kernel" in drawn - silent


@pytest.mark.slow
def test_drawing_depends_on_the_seed_and_storing_on_the_type(start):
    stage = dataclasses.replace(stage1(), origins=RANDOM)
    _, first = parameters(start, stage)
    _, again = parameters(start, stage)
    _, other = parameters(start, stage, seed=1, dtype=jnp.bfloat16)
    name = "denoiser/conv_in/kernel"
    np.testing.assert_array_equal(first[name], again[name])
    assert not np.allclose(first[name], np.float32(other[name]), atol=0.02)
    assert {x.dtype for x in other.values()} == {jnp.dtype(jnp.bfloat16)}
    assert not any(path.startswith("instance_guider") for path in first)


def test_the_paper_context_is_an_mlp_of_its_own(start):
    recipe = Recipe(context="dinov2", reference_bank=False)
    stage = dataclasses.replace(stage2(), origins=RANDOM)
    sizes, _ = origins_of(start, stage, recipe)
    assert sizes.reference is None
    assert sizes.context is not None and sizes.context.outputs == sizes.denoiser.context


@pytest.mark.parametrize("network", ["denoiser", "sketch_guider"])
def test_missing_and_misshapen_values_are_all_named(start, tmp_path, network):
    folder = write_start(tmp_path / "model")
    path = folder / f"{network}.safetensors"
    file = TensorFile(path)
    specs = {k: v for k, v in file.specs.items() if k != "conv_in/bias"}
    key = "time_embedding/linear_1/kernel"
    values = {k: file.read(k) for k in specs} | {key: file.read(key)[1:]}
    specs[key] = specs[key]._replace(shape=values[key].shape)
    with TensorFileWriter(path, specs) as writer:
        for name, value in values.items():
            writer.write(name, value)
    with pytest.raises(ValueError, match="origins do not fit") as error:
        origins_of(folder, small_stage())
    assert f"{network}/conv_in/bias: expected" in str(error.value)
    assert f"{network}/{key}: expected" in str(error.value)


def test_a_folder_without_the_origin_says_what_it_has(start):
    with pytest.raises(ValueError, match="starts sketch_guider from 'init/controlnet_lineart'"):
        model_config(start, without(start, "sketch_guider"), Recipe.paper(), stage1())
    bare = without(start, "reference")
    shapes = {path: shape for path, shape in model_shapes(small_config()).items()}
    with pytest.raises(FileNotFoundError, match="init/unet.safetensors"):
        find_origins(start, bare, stage1(), shapes)


def frozen(folder, *, encoder=False, **losses):
    config = read_config(folder)
    stage = dataclasses.replace(stage2(), losses=LossConfig(**losses), encoder=encoder)
    mesh = train_mesh((1, 1, 1))
    return load_frozen(folder, config, Recipe.paper(), stage, F32, "full", mesh)


def test_only_what_the_losses_need_is_loaded(start, tmp_path):
    assert frozen(start).vgg is not None and frozen(start).encoders.vae.cfg.remat == "full"
    assert frozen(start, perceptual=0.0).vgg is None
    assert frozen(start, perceptual_network="autoencoder").vgg is None
    assert frozen(start).dinov2 is not None and frozen(start, encoder=True).dinov2 is None
    without = write_nano_model(tmp_path / "model", small_config())
    with pytest.raises(ValueError, match=r"lacks \['vgg19'\]"):
        frozen(without)


def test_a_network_that_training_reads_is_missed_before_anything_is_done(start, tmp_path):
    folder = write_nano_model(tmp_path / "model", small_config())
    config = TrainConfig(out=tmp_path / "run", init=folder, stage=small_stage())
    with pytest.raises(ValueError, match=r"config.json lacks \['vgg19'\]"):
        plan_training(config)
