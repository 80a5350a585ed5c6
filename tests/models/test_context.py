"""The token MLP of recipe `context: dinov2`."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magiccolor_jax.models.context import ContextConfig, ContextEncoder


@pytest.mark.torch
def test_equals_pytorchs_layers():
    torch = pytest.importorskip("torch")
    from oracles.parity import relative_error, run
    from oracles.perturb import perturb_

    from converters.weightmap import WeightMap

    cfg = ContextConfig.nano()
    oracle = torch.nn.Sequential(
        torch.nn.LayerNorm(cfg.inputs),
        torch.nn.Linear(cfg.inputs, cfg.hidden),
        torch.nn.GELU(),
        torch.nn.Linear(cfg.hidden, cfg.outputs),
    )
    perturb_(oracle, seed=0)
    tokens = np.random.default_rng(0).normal(2, 3, (2, 9, cfg.inputs)).astype(np.float32)
    names = WeightMap(renames=(("norm", "0"), ("proj_in", "1"), ("proj_out", "3")))
    ours = run(lambda: ContextEncoder(cfg, rngs=nnx.Rngs(0)), names, oracle.state_dict(), tokens)
    assert relative_error(ours, oracle(torch.tensor(tokens)).numpy()) < 1e-5


def test_runs_in_half_precision():
    cfg = ContextConfig.nano(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    encoder = ContextEncoder(cfg, rngs=nnx.Rngs(0))
    assert encoder(jnp.ones((1, 3, cfg.inputs))).dtype == jnp.bfloat16
