"""A model's folder: round trips, every refusal, loading onto several devices."""

import json
import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from magiccolor_jax import checkpoint
from magiccolor_jax.checkpoint import (
    CONFIG_NAME,
    KINDS,
    ModelConfig,
    SamplingDefaults,
    config_from_json,
    load_network,
    network_from_json,
    network_to_json,
    parameter_shapes,
    read_config,
    save_network,
    write_config,
)
from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Sizes

CFG = ContextConfig.nano()


@pytest.fixture
def network():
    return ContextEncoder(CFG, rngs=nnx.Rngs(0))


@pytest.fixture
def folder(tmp_path, network):
    save_network(tmp_path / "context.safetensors", network)
    return tmp_path


def flat(module):
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in state}


def test_a_network_comes_back_bit_for_bit(folder, network):
    saved, loaded = flat(network), flat(load_network(folder, "context", CFG))
    assert saved.keys() == loaded.keys()
    assert all(np.array_equal(saved[key], loaded[key]) for key in saved)
    assert set(load_file(folder / "context.safetensors")) == set(saved)


def test_the_loaded_network_runs_jitted(folder, network):
    tokens = jnp.ones((1, 3, CFG.inputs))
    run = nnx.jit(lambda network: network(tokens))
    assert np.array_equal(run(network), run(load_network(folder, "context", CFG)))


def test_parameters_are_cast_to_the_configs_dtype(folder, network):
    half = flat(load_network(folder, "context", ContextConfig.nano(param_dtype=jnp.bfloat16)))
    saved = flat(network)
    assert all(np.array_equal(half[k], saved[k].astype(jnp.bfloat16)) for k in saved)
    assert {x.dtype for x in half.values()} == {np.dtype(jnp.bfloat16)}


def test_a_half_precision_network_is_saved_as_it_is(tmp_path):
    cfg = ContextConfig.nano(param_dtype=jnp.bfloat16)
    save_network(tmp_path / "c.safetensors", ContextEncoder(cfg, rngs=nnx.Rngs(0)))
    assert {x.dtype for x in load_file(tmp_path / "c.safetensors").values()} == {
        np.dtype(jnp.bfloat16)
    }


def test_parameter_shapes_are_the_modules(network):
    assert parameter_shapes(CFG) == {key: array.shape for key, array in flat(network).items()}


def test_every_difference_is_in_one_report(folder):
    path = folder / "context.safetensors"
    tensors = load_file(path)
    tensors["norm/surplus"] = tensors.pop("norm/bias")
    tensors["proj_in/kernel"] = np.ascontiguousarray(tensors["proj_in/kernel"].T)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="does not fit config.json") as error:
        load_network(folder, "context", CFG)
    lines = str(error.value).splitlines()
    assert sorted(lines[1:]) == [
        "  missing     norm/bias (32,)",
        "  shape       proj_in/kernel: expected (32, 16), got (16, 32)",
        "  unexpected  norm/surplus (32,)",
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="context.safetensors: config.json names this"):
        load_network(tmp_path, "context", CFG)


CONFIG = ModelConfig(
    networks={"denoiser": UNetConfig.nano(), "init/controlnet": ControlNetConfig.nano()},
    recipe=Recipe.release(),
    sizes=Sizes(page=128, canvas=128, reference=56, patch=14, clip=32),
    sampling=SamplingDefaults(steps=7, guidance=2.0, sampler="dpmpp_2m"),
)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("sizes", {"page": "512"}, "sizes must be whole numbers of pixels.*got {'page': '512'}"),
        ("sizes", {"canvas": -3}, "got {'canvas': -3}"),
        ("sampling", {"steps": 0}, "steps of at least 1"),
        ("sampling", {"guidance": "high"}, "a number as guidance"),
        ("sampling", {"sampler": "foo"}, "a sampler of ddim, dpmpp_2m: got"),
    ],
)
def test_sizes_and_defaults_are_checked(part, change, message, tmp_path):
    content = CONFIG.to_json()
    content[part] |= change
    with pytest.raises(ValueError, match=message):
        config_from_json(content, tmp_path)


def test_folders_from_before_the_sampling_defaults_have_them(tmp_path):
    content = CONFIG.to_json()
    del content["sampling"]
    (tmp_path / CONFIG_NAME).write_text(json.dumps(content))
    assert read_config(tmp_path).sampling == SamplingDefaults(20, 3.5, "ddim")


def test_a_config_comes_back(tmp_path):
    write_config(tmp_path, CONFIG)
    assert read_config(tmp_path) == CONFIG
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["recipe"] == "release"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_comes_back(kind):
    config, _ = KINDS[kind]
    cfg = config.nano(dtype=jnp.bfloat16)
    text = json.loads(json.dumps(network_to_json(cfg)))
    assert text["kind"] == kind
    assert not set(text) & checkpoint.RUNTIME_FIELDS
    assert network_from_json(text, "here") == config.nano()


def edited(folder, edit):
    write_config(folder, CONFIG)
    content = CONFIG.to_json()
    edit(content)
    (folder / CONFIG_NAME).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format="diffusers"), "run `magiccolor convert` on it first"),
        (lambda c: c.update(format_version=2), "format_version must be 1, got 2"),
        (lambda c: c["networks"]["denoiser"].update(kind="gan"), "denoiser: network kind must be"),
        (lambda c: c["networks"]["denoiser"].pop("kind"), "network kind must be .* got None"),
        (lambda c: c["networks"]["denoiser"].update(depth=3), r"unknown \['depth'\]"),
        (lambda c: c["networks"]["denoiser"].pop("layers"), r"missing \['layers'\]"),
        (lambda c: c.update(recipe="sketchy"), "config.json: recipe: expected one of"),
        (lambda c: c["schedule"].update(beta_end=2.0), "config.json: schedule: betas must satisfy"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, edit, message):
    edited(tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


def test_a_config_that_is_no_json_is_refused(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("{")
    with pytest.raises(ValueError, match=r"config.json: must be JSON"):
        read_config(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="magiccolor convert RELEASE_FOLDER"):
        read_config(tmp_path / "nowhere")


def test_each_device_reads_its_own_part(folder):
    """Eight forced host devices, every tensor cut along its first axis."""
    script = f"""
        import pathlib
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from flax import nnx
        from magiccolor_jax import checkpoint, tensorfile
        from magiccolor_jax.models.context import ContextConfig
        from magiccolor_jax.parallel.mesh import DATA, data_mesh, replicated

        class Watched:
            def __init__(self, tensor):
                self.tensor = tensor
            def __getitem__(self, part):
                read.append(self.tensor[part].nbytes)
                return self.tensor[part]

        read, mapped = [], tensorfile.TensorFile.mapped
        tensorfile.TensorFile.mapped = lambda file, key: Watched(mapped(file, key))
        mesh, folder = data_mesh(), pathlib.Path({str(folder)!r})
        assert mesh.size == 8
        load = lambda sharding: checkpoint.load_network(
            folder, "context", ContextConfig.nano(), sharding=sharding
        )
        whole = load(None)
        total, largest = sum(read), max(read)
        read.clear()
        parts = load(NamedSharding(mesh, P(DATA)))
        assert sum(read) == total and max(read) == largest // 8, (sum(read), max(read))
        for x, y in zip(*(jax.tree.leaves(nnx.state(n, nnx.Param)) for n in (whole, parts))):
            assert len(y.addressable_shards) == 8
            assert y.addressable_shards[0].data.shape[0] == x.shape[0] // 8
            np.testing.assert_array_equal(x, y)
        assert all(
            leaf.is_fully_replicated
            for leaf in jax.tree.leaves(nnx.state(load(replicated(mesh)), nnx.Param))
        )
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "JAX_PLATFORMS": "cpu",
        },
    )
