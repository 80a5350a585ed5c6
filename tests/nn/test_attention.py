"""Every implementation of attention against a float64 softmax."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pltpu

from magiccolor_jax.nn import attention
from magiccolor_jax.nn.attention import QUERY_CHUNK, attend

TOLERANCE, HALF_TOLERANCE = 2e-6, 1.5e-2
"""Relative to the largest value, f32 and bf16; bf16 has 8 bits, and queries, weights and the result
are all rounded to it."""

BATCH, HEADS = 2, 3
CASES = {
    "one chunk": (20, 20, 8),
    "two chunks and a rest": (2 * QUERY_CHUNK + 37, 90, 8),
    "whole chunks": (2 * QUERY_CHUNK, 64, 40),
    "more keys than queries": (7, 300, 16),
    "one query": (1, 33, 5),
    "one key": (130, 1, 8),
}


attend_jitted = jax.jit(attend, static_argnames=("causal", "implementation"))


def operands(length, keys, width, dtype=jnp.float32):
    rng = np.random.default_rng(length + keys)
    shapes = [(BATCH, n, HEADS, width) for n in (length, keys, keys)]
    # Scores with a deviation of three: a softmax that is neither flat nor one-hot.
    query, key, value = (rng.normal(scale=1.7, size=shape) for shape in shapes)
    mask = rng.random((BATCH, keys)) < 0.6
    mask[:, 0] = True
    return *(jnp.asarray(x, dtype) for x in (query, key, value)), jnp.asarray(mask)


def softmax64(query, key, value, mask=None, causal=False):
    query, key, value = (np.asarray(x.astype(jnp.float32), np.float64) for x in (query, key, value))
    scores = np.einsum("blnd,bsnd->bnls", query, key) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(np.asarray(mask)[:, None, None, :], scores, -np.inf)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bnls,bsnd->blnd", weights, value)


def error(ours, theirs):
    ours = np.asarray(ours.astype(jnp.float32))
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("masked", [False, True], ids=["all keys", "masked"])
@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_equals_a_float64_softmax(implementation, sizes, masked):
    query, key, value, mask = operands(*sizes)
    mask = mask if masked else None
    ours = attend_jitted(query, key, value, mask=mask, implementation=implementation)
    assert error(ours, softmax64(query, key, value, mask)) < TOLERANCE


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_half_precision_stays_half(implementation):
    query, key, value, mask = operands(*CASES["two chunks and a rest"], jnp.bfloat16)
    ours = attend_jitted(query, key, value, mask=mask, implementation=implementation)
    assert ours.dtype == jnp.bfloat16
    assert error(ours, softmax64(query, key, value, mask)) < HALF_TOLERANCE


@pytest.mark.parametrize("masked", [False, True], ids=["all keys", "masked"])
@pytest.mark.parametrize("sizes", [(150, 70, 40)])
def test_the_tpu_kernel_in_interpreter(sizes, masked):
    query, key, value, mask = operands(*sizes)
    mask = mask if masked else None
    with pltpu.force_tpu_interpret_mode():
        ours = attend(query, key, value, mask=mask, implementation="flash")
    assert error(ours, softmax64(query, key, value, mask)) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_the_tpu_kernel_lowers_at_full_size(dtype):
    shape = jax.ShapeDtypeStruct((2, 4096, 8, 40), dtype)
    keys = jax.ShapeDtypeStruct((2, 4173, 8, 40), dtype)
    flash = jax.jit(functools.partial(attend, implementation="flash"))
    lowered = jax.export.export(flash, platforms=["tpu"])(shape, keys, keys)
    assert "tpu_custom_call" in lowered.mlir_module()


@pytest.mark.parametrize("implementation", ["auto", "xla"])
@pytest.mark.parametrize("length", [9, 600])
def test_causal(implementation, length):
    query, key, value, _ = operands(length, length, 8)
    ours = attend_jitted(query, key, value, causal=True, implementation=implementation)
    assert error(ours, softmax64(query, key, value, causal=True)) < TOLERANCE


@pytest.mark.parametrize("implementation", ["chunked", "flash"])
def test_causal_is_refused_by_what_cannot_do_it(implementation):
    query, key, value, _ = operands(9, 9, 8)
    with pytest.raises(ValueError, match=f"'{implementation}' has no causal mask"):
        attend(query, key, value, causal=True, implementation=implementation)


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_a_row_without_keys_gives_the_mean(implementation):
    query, key, value, _ = operands(9, 12, 8)
    mask = jnp.zeros((BATCH, 12), bool).at[1].set(True)
    ours = attend_jitted(query, key, value, mask=mask, implementation=implementation)
    mean = jnp.broadcast_to(value[:1].mean(1, keepdims=True), ours[:1].shape)
    assert error(ours[:1], np.asarray(mean)) < 1e-6
    assert error(ours[1:], softmax64(query[1:], key[1:], value[1:])) < 1e-6


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_half_precision_has_scores_of_f32(implementation):
    """The product and its exponential: scores rounded to bf16 would cost digits of the weights."""
    query, key, value, mask = operands(*CASES["two chunks and a rest"], jnp.bfloat16)
    traced = jax.make_jaxpr(functools.partial(attend, implementation=implementation))
    text = str(traced(query, key, value, mask=mask))
    kinds = re.findall(r":(\w+)\[[\d,]+\] = (exp|dot_general)\b", text)
    assert kinds[:2] == [("f32", "dot_general"), ("f32", "exp")]


def test_chunks_keep_no_matrix_of_all_scores():
    """Neither the program nor its gradient's forward holds [.. L S] values."""
    length = 8 * QUERY_CHUNK
    query, key, value, _ = operands(length, length, 8)
    chunked = jax.jit(functools.partial(attend, implementation="chunked"))
    assert f"{length}x{length}" not in chunked.lower(query, key, value).as_text()


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_large_scores_do_not_overflow(implementation):
    query, key, value, _ = operands(5, 6, 8)
    ours = attend_jitted(100 * query, 100 * key, value, implementation=implementation)
    assert error(ours, softmax64(100 * query, 100 * key, value)) < 1e-5


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_gradients_agree(implementation):
    query, key, value, mask = operands(QUERY_CHUNK + 9, 40, 8)

    def loss(operands, implementation):
        return jnp.sum(jnp.sin(attend(*operands, mask=mask, implementation=implementation)))

    ours = jax.jit(jax.grad(loss), static_argnums=1)((query, key, value), implementation)

    def plain(operands):
        query, key, value = operands
        scores = jnp.einsum("blnd,bsnd->bnls", query, key) / 8**0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e30))
        return jnp.sum(jnp.sin(jnp.einsum("bnls,bsnd->blnd", weights, value)))

    expected = jax.jit(jax.grad(plain))((query, key, value))
    for got, wanted in zip(ours, expected, strict=True):
        assert error(got, np.asarray(wanted)) < 1e-5


@pytest.mark.parametrize(
    ("backend", "length", "width", "dtype", "masked", "expected"),
    [
        ("gpu", 8300, 40, jnp.bfloat16, True, "chunked"),
        ("cpu", 4096, 40, jnp.float32, True, "chunked"),
        ("cpu", 64, 40, jnp.float32, False, "xla"),
        ("gpu", 4096, 40, jnp.bfloat16, False, "cudnn"),
        ("gpu", 4096, 40, jnp.bfloat16, True, "xla"),
        ("gpu", 4096, 40, jnp.float32, False, "xla"),
        ("gpu", 64, 160, jnp.bfloat16, False, "xla"),
        ("gpu", 64, 4, jnp.bfloat16, False, "xla"),
        ("tpu", 4096, 40, jnp.float32, True, "flash"),
        ("tpu", 64, 40, jnp.bfloat16, False, "xla"),
    ],
)
def test_auto_suits_the_platform(monkeypatch, backend, length, width, dtype, masked, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = []

    def choose(query):
        chosen.append(attention._choose(query, query, masked))

    jax.eval_shape(choose, jax.ShapeDtypeStruct((2, length, 8, width), dtype))
    assert chosen == [expected]


def test_projections_split_heads_as_pytorch_does():
    """Head n owns channels n*D..(n+1)*D-1."""
    layer = attention.Projections(
        12, 12, 3, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    x = jnp.arange(24.0).reshape(1, 2, 12)
    assert np.array_equal(layer.split(x)[0, 1, 2], [20, 21, 22, 23])
    key, value = layer.keys_values(x)
    assert np.allclose(key.reshape(1, 2, 12), layer.to_k(x))
    assert np.allclose(value.reshape(1, 2, 12), layer.to_v(x))
    assert np.allclose(layer.merge(layer.split(x)), layer.to_out(x))
