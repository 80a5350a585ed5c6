"""The step on a toy network whose gradient is known."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from magiccolor_jax.losses.objective import Frozen, Keys
from magiccolor_jax.training.optim import OptimConfig, make_optimizer
from magiccolor_jax.training.parameters import Layout
from magiccolor_jax.training.step import (
    StepContext,
    add_part,
    first_state,
    no_part,
    step_update,
    train_step,
)
from magiccolor_jax.types import TrainingBatch

SIZE = 8


class Toy(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.List([nnx.Linear(3, 4, rngs=rngs)])
        self.second = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first[0](x)))[:, 0]


def loss(model, frozen, batch, keys, progress):
    """Squared distance to a line; the noise shows whether keys are used."""
    x, y = batch.case, batch.target
    noise = frozen.encoders * jax.random.normal(keys.noise, y.shape)
    value = jnp.mean(jnp.square(model(x) - y - noise))
    return value, {"loss": value, "progress": progress}


@pytest.fixture(scope="module")
def toy():
    return Toy(rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batches():
    random = np.random.default_rng(0)
    return [
        TrainingBatch(
            jnp.float32(random.normal(size=(SIZE, 3))),
            jnp.float32(random.normal(size=SIZE)),
            jnp.ones((SIZE, 1)),
            jnp.ones((SIZE, 1)),
        )
        for _ in range(6)
    ]


def make(toy, **options):
    layout = Layout(toy)
    parameters = layout.take(toy)
    fixed = {k: v for k, v in parameters.items() if k.startswith("first")}
    trainable = {k: v for k, v in parameters.items() if k not in fixed}
    context = StepContext(layout=layout, loss=loss, optimizer=optax.adam(0.1), steps=10, **options)
    step = jax.jit(lambda *args: train_step(context, *args))
    return context, fixed, first_state(context, trainable), step


def run(toy, batches, noise=0.0, state=None, **options):
    _, fixed, first, step = make(toy, **options)
    state, losses = state or first, []
    for batch in batches:
        state, metrics = step(fixed, Frozen(noise, None, None), state, batch, jax.random.key(7))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return state, losses


def test_a_layout_builds_what_it_was_made_of(toy):
    layout = Layout(toy)
    parameters = layout.take(toy)
    assert sorted(parameters) == [
        "first/0/bias",
        "first/0/kernel",
        "second/bias",
        "second/kernel",
    ]
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(layout.build(dict(reversed(parameters.items())))(x), toy(x))
    changed = layout.build(parameters | {"second/bias": parameters["second/bias"] + 1})
    np.testing.assert_allclose(changed(x), toy(x) + 1, rtol=1e-6)


def test_state_beside_parameters_is_refused():
    with pytest.raises(ValueError, match="expected parameters only"):
        Layout(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


def test_only_what_is_trained_has_moments_and_moves(toy, batches):
    _, _, first, _ = make(toy)
    state, losses = run(toy, batches[:1] * 6)
    assert (
        state.trainable.keys() == state.optimizer[0].mu.keys() == {"second/bias", "second/kernel"}
    )
    assert all(np.any(state.trainable[k] != first.trainable[k]) for k in first.trainable)
    assert losses[-1] < 0.8 * losses[0] and int(state.step) == 6


def test_stopping_in_the_middle_changes_nothing(toy, batches):
    whole, losses = run(toy, batches, noise=1.0)
    half, before = run(toy, batches[:3], noise=1.0)
    saved = jax.tree.map(np.asarray, half)
    rest, after = run(toy, batches[3:], noise=1.0, state=jax.tree.map(jnp.asarray, saved))
    assert before + after == losses
    jax.tree.map(np.testing.assert_array_equal, whole, rest)


def test_every_step_draws_anew(toy, batches):
    _, quiet = run(toy, batches[:1] * 2)
    _, loud = run(toy, batches[:1] * 2, noise=1.0)
    _, again = run(toy, batches[:1] * 2, noise=1.0)
    assert loud == again
    differences = np.subtract(loud, quiet)
    assert abs(differences[0] - differences[1]) > 1e-3


def test_parts_add_up_to_the_whole(toy, batches):
    whole, losses = run(toy, batches)
    parts, in_parts = run(toy, batches, accumulate=4)
    assert in_parts == pytest.approx(losses, rel=1e-5)
    for key, value in whole.trainable.items():
        np.testing.assert_allclose(parts.trainable[key], value, rtol=1e-4, atol=1e-6)


def test_parts_one_by_one_are_the_step(toy, batches):
    context, fixed, state, step = make(toy, accumulate=4)
    frozen, key = Frozen(1.0, None, None), jax.random.key(7)
    given = fixed, frozen, state.trainable, state.step, batches[0], key
    total = no_part(context, *given)
    for number in range(4):
        total = jax.jit(partial(add_part, context))(total, *given, jnp.int32(number))
    found, norm = step_update(context, state, total[0])
    expected, metrics = step(fixed, frozen, state, batches[0], key)
    assert float(norm) == pytest.approx(float(metrics["grad_norm"]), rel=1e-5)
    assert float(total[1]["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    for path, value in expected.trainable.items():
        np.testing.assert_allclose(found.trainable[path], value, rtol=1e-5, err_msg=path)


def test_every_part_has_noise_of_its_own(toy, batches):
    """With one key for all parts, they would see the same noise: that of a quarter, four times."""
    context, fixed, state, step = make(toy, accumulate=4)
    still = jax.tree.map(lambda x: jnp.zeros_like(x[:1]).repeat(SIZE, 0), batches[0])
    key, part = jax.random.key(0), SIZE // 4
    _, metrics = step(fixed, Frozen(1.0, None, None), state, still, key)
    bias = float(toy(jnp.zeros((1, 3)))[0])
    keys = [jax.random.fold_in(jax.random.fold_in(key, 0), number) for number in range(4)]
    noise = [jax.random.normal(Keys.split(k).noise, (part,)) for k in keys]
    expected = np.mean([np.square(bias - np.asarray(x)).mean() for x in noise])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_narrow_parameters_have_wide_gradients_and_moments(toy, batches):
    context, fixed, _, _ = make(toy)
    context = dataclasses.replace(context, optimizer=make_optimizer(OptimConfig(), ["w"], 10))
    wide = {"w": jnp.ones(2)}
    state = first_state(context, {"w": jnp.ones(2, jnp.bfloat16)})
    types = {x.dtype for x in jax.tree.leaves(state.optimizer) if x.ndim}
    assert (
        types
        == {jnp.dtype("float32")}
        == {x.dtype for x in jax.tree.leaves(first_state(context, wide).optimizer) if x.ndim}
    )
    many = {f"second/{i}": jnp.ones((), jnp.bfloat16) for i in range(600)}

    class Bare(Layout):
        """Whose model is its parameters."""

        def __init__(self):
            pass

        def build(self, parameters):
            return parameters

    def total(model, *_):
        return sum(model.values()), {"loss": jnp.zeros(())}

    context = dataclasses.replace(context, loss=total, layout=Bare())
    given = {}, None, many, jnp.zeros((), jnp.int32), batches[0], jax.random.key(0)
    found, _ = add_part(context, no_part(context, *given), *given, jnp.zeros((), jnp.int32))
    assert float(optax.tree.norm(found)) == pytest.approx(600**0.5, rel=1e-5)


def test_the_average_follows(toy, batches):
    state, _ = run(toy, batches[:2], average_decay=0.2)
    _, _, first, _ = make(toy)
    one, _ = run(toy, batches[:1])
    key = "second/kernel"
    # Decays min(0.2, 1/10) and min(0.2, 2/11).
    after_one = 0.1 * first.trainable[key] + 0.9 * one.trainable[key]
    expected = 2 / 11 * after_one + 9 / 11 * state.trainable[key]
    np.testing.assert_allclose(state.average[key], expected, rtol=1e-5)
    assert run(toy, batches[:1])[0].average is None


def test_the_average_of_narrow_parameters_is_wide(toy):
    context, _, _, _ = make(toy, average_decay=0.999)
    narrow = {"second/bias": jnp.full(3, 0.5, jnp.bfloat16)}
    assert first_state(context, narrow).average["second/bias"].dtype == jnp.float32


def test_progress_is_the_share_of_finished_steps(toy, batches):
    _, fixed, state, step = make(toy)
    shares = []
    for batch in batches[:3]:
        state, metrics = step(fixed, Frozen(0.0, None, None), state, batch, jax.random.key(7))
        shares.append(float(metrics["progress"]))
    assert shares == pytest.approx([0, 0.1, 0.2])
    assert float(metrics["grad_norm"]) > 0
