"""The two tables of the train state."""

import os
import subprocess
import sys
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.models.context import ContextConfig
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.parallel.sharding import (
    AXES,
    parameter_specs,
    state_shardings,
    train_mesh,
)

NETWORKS = {
    "denoiser": UNetConfig.sd15(),
    "sketch_guider": ControlNetConfig.sketch(),
    "instance_guider": ControlNetConfig.multi(),
    "context": ContextConfig.nano(),
}


@pytest.fixture(scope="module")
def shapes():
    return {
        f"{name}/{path}": shape
        for name, cfg in NETWORKS.items()
        for path, shape in parameter_shapes(cfg).items()
    }


def test_every_large_parameter_is_cut_by_fsdp(shapes):
    specs = parameter_specs(shapes, AbstractMesh((2, 8, 1), AXES))
    assert specs.keys() == shapes.keys()
    whole = [path for path, spec in specs.items() if "fsdp" not in spec]
    kernels = {path: shapes[path] for path in whole if path.endswith("/kernel")}
    # Pictures (3), latents (4), and hint embeddings' narrow widths alone.
    assert all(shape[-2] % 8 for shape in kernels.values()), kernels
    assert len(kernels) < 6


def test_heads_and_hidden_units_are_cut_by_tensor(shapes):
    specs = parameter_specs(shapes, AbstractMesh((1, 2, 4), AXES))
    block = "denoiser/down_blocks/0/attentions/0/transformer_blocks/0"
    assert specs[f"{block}/attn1/to_q/kernel"] == P("fsdp", "tensor")
    assert specs[f"{block}/attn2/to_out/kernel"] == P("tensor", "fsdp")
    assert specs[f"{block}/ff/proj_in/kernel"] == P("fsdp", "tensor")
    assert specs[f"{block}/ff/proj_out/kernel"] == P("tensor", "fsdp")
    assert specs["denoiser/down_blocks/0/resnets/0/conv1/kernel"] == P(None, None, "fsdp", None)
    assert specs["sketch_guider/controlnet_cond_embedding/conv_in/kernel"] == P(*[None] * 4)
    assert specs["denoiser/conv_in/bias"] == P(None)


def test_an_unknown_leaf_is_an_error(shapes):
    with pytest.raises(ValueError, match="sharding: every parameter must match"):
        parameter_specs({"denoiser/table": (3, 4)}, AbstractMesh((1, 1, 1), AXES))


def test_moments_lie_as_their_parameters_do():
    mesh = train_mesh((-1, 1, 1))
    parameters = {"a/conv/kernel": jnp.zeros((3, 3, 8, 4)), "a/conv/bias": jnp.zeros(4)}
    shapes = {path: leaf.shape for path, leaf in parameters.items()}
    rows = {path: jnp.zeros(leaf.shape[:1]) for path, leaf in parameters.items()}
    found = state_shardings((jnp.zeros(()), (parameters,), rows), shapes, mesh)
    assert found[1][0]["a/conv/kernel"].spec == P(None, None, "fsdp", None)
    assert found[0].spec == P() == found[2]["a/conv/kernel"].spec


def test_meshes_use_every_device():
    count = len(jax.devices())
    assert train_mesh((-1, 1, 1)).shape == {"data": count, "fsdp": 1, "tensor": 1}
    for wrong in ((count + 1, 1, 1), (-1, -1, 1), (-1, count + 1, 1)):
        with pytest.raises(ValueError, match=f"expected a product of {count}"):
            train_mesh(wrong)


@pytest.mark.slow
def test_a_mesh_gives_the_losses_of_one_device():
    """With all losses, on 8 forced devices as 2 x 2 x 2. (Whole runs on more meshes, without the
    losses that take long to compile: tests/training/test_loop.py.)"""
    script = Path(__file__).parents[1] / "oracles" / "sharded_steps.py"
    found = {}
    for shape in ("1,1,1", "2,2,2"):
        devices = prod(map(int, shape.split(",")))
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
        }
        run = subprocess.run(
            [sys.executable, script, shape],
            env=environment,
            cwd=script.parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        found[shape] = [float(value) for value in run.stdout.split()]
    alone = found.pop("1,1,1")
    assert len(set(alone)) == len(alone) == 3
    for shape, losses in found.items():
        assert losses == pytest.approx(alone, rel=1e-5), shape
