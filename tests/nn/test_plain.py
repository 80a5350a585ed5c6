"""Programs that are written out: the same values, and only where they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magiccolor_jax.nn.attention import QUERY_CHUNK, attend
from magiccolor_jax.nn.plain import is_plain, plain_programs
from magiccolor_jax.nn.remat import call

LENGTH = 3 * QUERY_CHUNK


def primitives(function, *args):
    """Names of the outermost operations."""
    return {eqn.primitive.name for eqn in jax.make_jaxpr(lambda *x: function(*x))(*args).eqns}


def test_attention_has_no_loop_and_the_same_values():
    random = np.random.default_rng(0)
    operands = [jnp.asarray(random.normal(size=(1, LENGTH, 2, 8)), jnp.float32) for _ in range(3)]
    expected = attend(*operands)
    assert "scan" in primitives(attend, *operands)
    with plain_programs():
        assert "scan" not in primitives(attend, *operands)
        found = attend(*operands)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_implementation_that_is_asked_for_is_taken():
    x = jnp.ones((1, LENGTH, 1, 4))
    with plain_programs():
        assert "scan" in primitives(lambda x: attend(x, x, x, implementation="chunked"), x)


def test_nothing_is_computed_twice():
    double = lambda x: call(lambda y: 2 * y, "full", x)  # noqa: E731
    x = jnp.ones(3)
    assert primitives(double, x) == {"remat2"}
    with plain_programs():
        assert primitives(double, x) == {"mul"}


def test_it_ends_with_the_block():
    with pytest.raises(RuntimeError), plain_programs():
        assert is_plain()
        raise RuntimeError
    assert not is_plain()
