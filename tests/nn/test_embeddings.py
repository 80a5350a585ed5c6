"""The timestep embedding against diffusers'."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
embeddings = pytest.importorskip("diffusers.models.embeddings")

from oracles.parity import relative_error, run  # noqa: E402
from oracles.perturb import perturb_  # noqa: E402

from converters.weightmap import WeightMap  # noqa: E402
from magiccolor_jax.nn.embeddings import TimestepEmbedding, sinusoidal_embedding  # noqa: E402

pytestmark = pytest.mark.torch

TIMESTEPS = np.array([0, 1, 37, 501, 999], np.int32)


@pytest.mark.parametrize("channels", [16, 320])
def test_sinusoids_equal_diffusers(channels):
    theirs = embeddings.get_timestep_embedding(
        torch.tensor(TIMESTEPS), channels, flip_sin_to_cos=True, downscale_freq_shift=0
    )
    ours = sinusoidal_embedding(jnp.asarray(TIMESTEPS), channels)
    # Angles up to 999 rad: one rounding of the angle in f32 is 6e-5 of a turn's radius.
    assert relative_error(ours, theirs) < 1e-4


def test_the_embedding_equals_diffusers():
    oracle = perturb_(embeddings.TimestepEmbedding(16, 64), seed=0)
    kinds = {"dtype": jnp.float32, "param_dtype": jnp.float32}
    ours = run(
        lambda: TimestepEmbedding(16, 64, rngs=nnx.Rngs(0), **kinds),
        WeightMap(),
        oracle.state_dict(),
        TIMESTEPS,
    )
    sinusoids = embeddings.get_timestep_embedding(torch.tensor(TIMESTEPS), 16, True, 0)
    assert relative_error(ours, oracle(sinusoids)) < 1e-4
