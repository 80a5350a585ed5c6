"""LPIPS against its authors' package: distances that scripts/goldens_lpips.py stored."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_weights import seeded_pictures
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.encoders.lpips import LPIPS, LPIPSConfig
from magiccolor_jax.nn.abstract import abstract

GOLDEN = Path(__file__).parents[1] / "golden" / "lpips.npz"

TOLERANCE = 1e-5

CONFIGS = {"alex": LPIPSConfig.alex(), "vgg": LPIPSConfig.vgg()}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """Full-size, with the weights that the oracle had."""
    return seeded_network(LPIPS, CONFIGS[request.param], maps.LPIPS)


def pictures(golden, name):
    shape = tuple(golden[f"shape/{name}"])
    names = (f"{name} {side}" for side in ("pictures", "truths"))
    return [jnp.asarray(seeded_pictures(each, shape)) for each in names]


@pytest.mark.parametrize("name", ["square", "odd"])
def test_equals_the_authors(model, golden, name):
    found = nnx.jit(lambda model, *pair: model(*pair))(model, *pictures(golden, name))
    expected = golden[f"{model.cfg.backbone}/{name}"]
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    assert len(set(expected.tolist())) == len(expected)


def test_a_picture_is_at_no_distance_from_itself_and_the_order_is_free(model, golden):
    one, other = pictures(golden, "square")
    assert not np.any(model(one, one))
    np.testing.assert_allclose(model(one, other), model(other, one), rtol=1e-6)


@pytest.mark.parametrize(("backbone", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_picture(backbone, smallest):
    """By torch: the last activation of a side of 31, or 16, has one pixel."""
    cfg = CONFIGS[backbone]
    network = abstract(LPIPS, cfg)
    call = nnx.jit(lambda network, x: network.activations(x)[-1])
    shape = jax.ShapeDtypeStruct((1, smallest, smallest, 3), jnp.float32)
    assert nnx.eval_shape(call, network, shape).shape[1:3] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {smallest} pixels, got {smallest - 1} x 40"):
        network(*[jnp.ones((1, smallest - 1, 40, 3))] * 2)


def test_half_precision_keeps_the_distance_in_single(golden):
    cfg = LPIPSConfig.alex(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    network = abstract(LPIPS, cfg)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    assert nnx.eval_shape(lambda n, x: n(x, x), network, x).dtype == jnp.float32
    activations = nnx.eval_shape(lambda n, x: n.activations(x), network, x)
    assert {found.dtype for found in activations} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"backbone": "squeeze"}, "one of"), ({"widths": (1, 2)}, "5 positive")],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LPIPSConfig(**changes)
