"""Networks without memory."""

import jax
from flax import nnx

from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.nn.abstract import abstract


def test_shapes_and_dtypes_are_those_of_the_network():
    cfg = ContextConfig.nano(param_dtype="bfloat16")
    real = nnx.state(ContextEncoder(cfg, rngs=nnx.Rngs(0)), nnx.Param)
    shapes = nnx.state(abstract(ContextEncoder, cfg), nnx.Param)
    assert jax.tree.structure(real) == jax.tree.structure(shapes)
    for x, y in zip(jax.tree.leaves(real), jax.tree.leaves(shapes), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert isinstance(y, jax.ShapeDtypeStruct)
