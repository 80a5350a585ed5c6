"""The optimiser against PyTorch's and against its own words."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from magiccolor_jax.training.optim import OptimConfig, learning_rate, make_optimizer

PATHS = ("a/kernel", "a/bias")

KINDS = ("adamw", "adafactor", "muon")


def parameters(seed, scale=1.0):
    random = np.random.default_rng(seed)
    shapes = {"a/kernel": (3, 5), "a/bias": (5,)}
    return {
        k: jnp.asarray(scale * random.standard_normal(s), jnp.float32) for k, s in shapes.items()
    }


def run(cfg, steps=4):
    optimizer = make_optimizer(cfg, PATHS, 20)
    values = parameters(0)
    state = optimizer.init(values)
    for step in range(steps):
        updates, state = optimizer.update(parameters(step + 1, 3.0), state, values)
        values = optax.apply_updates(values, updates)
    return values


@pytest.mark.torch
@pytest.mark.parametrize("clip", [1.0, 1e9])
def test_adamw_equals_torch(clip):
    torch = pytest.importorskip("torch")
    cfg = OptimConfig(lr=0.01, warmup=3, weight_decay=0.1, clip=clip)
    values = {k: torch.nn.Parameter(torch.tensor(np.asarray(v))) for k, v in parameters(0).items()}
    optimizer = torch.optim.AdamW(values.values(), lr=1.0, weight_decay=0.1)
    rate = learning_rate(cfg, 20)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = float(rate(step))
        for key, gradient in parameters(step + 1, 3.0).items():
            values[key].grad = torch.tensor(np.asarray(gradient))
        torch.nn.utils.clip_grad_norm_(values.values(), clip)
        optimizer.step()
    found = run(cfg)
    for key, value in values.items():
        np.testing.assert_allclose(found[key], value.detach().numpy(), rtol=2e-6, atol=2e-7)


def test_warmup_then_constant_or_cosine():
    constant = learning_rate(OptimConfig(lr=1.0, warmup=4), 20)
    assert [float(constant(i)) for i in (0, 1, 3, 4, 19)] == pytest.approx([0.25, 0.5, 1, 1, 1])
    cosine = learning_rate(OptimConfig(lr=1.0, warmup=4, schedule="cosine", final_lr=0.1), 20)
    assert [float(cosine(i)) for i in (0, 4, 12, 20)] == pytest.approx([0.25, 1, 0.55, 0.1])
    assert float(learning_rate(OptimConfig(lr=1.0, warmup=0), 20)(0)) == 1
    assert float(learning_rate(OptimConfig(lr=1.0, warmup=1), 20)(0)) == 1


def test_decay_follows_its_table():
    still = {k: jnp.zeros_like(v) for k, v in parameters(0).items()}
    for kind in KINDS:
        cfg = OptimConfig(
            kind=kind,
            lr=0.5,
            warmup=0,
            weight_decay=0.1,
            decays=((r".*/bias", False), (r".*", True)),
        )
        optimizer = make_optimizer(cfg, PATHS, 20)
        before = parameters(0)
        updates, _ = optimizer.update(still, optimizer.init(before), before)
        after = optax.apply_updates(before, updates)
        np.testing.assert_allclose(after["a/kernel"], 0.95 * before["a/kernel"], rtol=1e-5)
        np.testing.assert_array_equal(after["a/bias"], before["a/bias"])
    with pytest.raises(ValueError, match="weight decay: every parameter"):
        make_optimizer(OptimConfig(decays=((r".*/bias", False),)), PATHS, 20)


def test_both_kinds_go_downhill_at_the_rate_that_is_asked_for():
    for kind in ("adamw", "adafactor"):
        cfg = OptimConfig(kind=kind, lr=0.01, warmup=0, weight_decay=0.0)
        optimizer = make_optimizer(cfg, PATHS, 20)
        before, slope = parameters(0), parameters(1)
        updates, _ = optimizer.update(slope, optimizer.init(before), before)
        for key, update in updates.items():
            assert np.all(np.sign(update) == -np.sign(slope[key])), kind
            assert 0.002 < np.sqrt(np.mean(np.square(update))) <= 0.0101, kind


@pytest.mark.parametrize("shape", [(40, 12), (3, 3, 4, 20)])
def test_muon_makes_kernels_updates_orthogonal(shape):
    cfg = OptimConfig(kind="muon", lr=0.01, warmup=0, weight_decay=0.0, clip=1e9)
    random = np.random.default_rng(0)
    values = {path: jnp.asarray(random.normal(size=shape), jnp.float32) for path in PATHS}
    slope = {path: jnp.asarray(random.normal(size=shape), jnp.float32) for path in PATHS}
    optimizer = make_optimizer(cfg, PATHS, 20)
    update, _ = optimizer.update(slope, optimizer.init(values), values)
    matrix = np.asarray(update["a/kernel"]).reshape(-1, shape[-1])
    turned = np.linalg.svd(matrix, compute_uv=False) / (0.01 * 0.2 * max(matrix.shape) ** 0.5)
    assert 0.6 < turned.min() < turned.max() < 1.3, "all directions alike"
    assert (matrix * np.asarray(slope["a/kernel"]).reshape(matrix.shape)).sum() < 0
    adam = make_optimizer(OptimConfig(lr=0.01, warmup=0, weight_decay=0.0, clip=1e9), PATHS, 20)
    like, _ = adam.update(slope, adam.init(values), values)
    ratio = update["a/bias"] / like["a/bias"]  # with Nesterov's momentum
    assert np.all((ratio > 1) & (ratio < 1.5)), "others by AdamW"


def test_the_first_moment_may_be_halved():
    state = make_optimizer(OptimConfig(moments="bfloat16"), PATHS, 20).init(parameters(0))
    kinds = [{str(leaf.dtype) for leaf in part[0].mu.values()} for part in [state[1]]]
    assert kinds == [{"bfloat16"}]


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"clip": -1.0}, {"b2": 1.0}, {"warmup": -1}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="OptimConfig"):
        OptimConfig(**wrong)
