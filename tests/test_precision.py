"""Which numbers networks are stored and computed in."""

import jax
import jax.numpy as jnp
import pytest

from magiccolor_jax.precision import NAMES, for_inference


@pytest.mark.parametrize(("backend", "name"), [("cpu", "float32"), ("gpu", "bfloat16")])
def test_the_default_suits_the_platform(monkeypatch, backend, name):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert for_inference() == NAMES[name]


def test_a_name_overrides_the_platform():
    assert for_inference("bfloat16") == (jnp.bfloat16, jnp.bfloat16)
    assert for_inference("float32") == (jnp.float32, jnp.float32)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="precision must be one of.*got 'float64'"):
        for_inference("float64")
