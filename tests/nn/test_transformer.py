"""The transformer's shortcuts, in JAX alone (parity with diffusers: models/test_unet.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.randomise import randomise

from magiccolor_jax.nn.transformer import TransformerBlock


@pytest.fixture(scope="module")
def block():
    kinds = {"dtype": jnp.float32, "param_dtype": jnp.float32}
    made = nnx.eval_shape(lambda: TransformerBlock(8, 6, 2, rngs=nnx.Rngs(0), **kinds))
    return randomise(made, seed=0)


@nnx.jit
def run(block, x, context, mask=None, reference=None):
    return block(x, block.project(context, mask, reference))[0]


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_one_context_token_is_the_same_token_given_twice(block):
    """With one key the query is never made: softmax over it is 1."""
    x, context = normal(2, 5, 8), normal(2, 1, 6, seed=1)
    assert np.allclose(
        run(block, x, context), run(block, x, jnp.tile(context, (1, 2, 1))), atol=1e-5
    )


def test_a_masked_token_is_no_token(block):
    x, context = normal(2, 5, 8), normal(2, 4, 6, seed=1)
    mask = jnp.arange(4)[None] < jnp.asarray([[2], [2]])
    assert np.allclose(run(block, x, context, mask), run(block, x, context[:, :2]), atol=1e-5)


def test_its_own_tokens_as_reference_change_nothing(block):
    """Every key twice is the same softmax; the first row, without a reference, is the same too."""
    x, context = normal(3, 5, 8), normal(3, 1, 6, seed=1)
    normed = block.norm1(x)
    alone = run(block, x, context)
    assert np.allclose(alone, run(block, x, context, None, normed[1:]), atol=1e-5)
    other = run(block, x, context, None, normed[1:] + normal(2, 5, 8, seed=2))
    assert np.allclose(alone[0], other[0], atol=1e-5)
    assert np.abs(alone[1:] - other[1:]).max() > 1e-2
