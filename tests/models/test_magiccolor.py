"""The four networks together against one denoising evaluation of the release's oracle."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.magiccolor import Conditioning, Guide, MagicColor, MagicColorConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.types import Residuals

TOLERANCE = 1e-5


def channels_last(tensor):
    return jnp.asarray(tensor.movedim(1, -1).contiguous().numpy())


@nnx.jit
def evaluate(model, canvas, reference_context, context, sketch, guidance, latents, timesteps):
    """release.md §2 for one case, rows [unconditional, conditional], everything by hand."""
    features = model.reference_features(jnp.tile(canvas, (2, 1, 1, 1)), reference_context, None)
    bank = tuple(x[1:].astype(jnp.float16).astype(jnp.float32) for x in features.hidden)
    hints = (model.sketch_guider.embed(sketch), model.instance_guider.embed(guidance))
    sketch, instance = (
        Guide(jnp.tile(hint, (2, 1, 1, 1)), guider.project(context))
        for hint, guider in zip(hints, (model.sketch_guider, model.instance_guider), strict=True)
    )
    conditioning = Conditioning(model.denoiser.project(context, None, bank), sketch, instance, None)
    return model(jnp.tile(latents, (2, 1, 1, 1)), timesteps, conditioning)


@pytest.mark.torch
def test_one_evaluation_equals_the_release():
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from oracles.nano import CONTEXT, DINO_WIDTH, nano_release_models
    from oracles.parity import relative_error
    from oracles.release import Conditions, GuidedDenoiser

    from converters import maps, weightmap

    models = nano_release_models(0)
    ours = abstract(MagicColor, MagicColorConfig.nano(dino=DINO_WIDTH))
    for network, weight_map, oracle in (
        (ours.denoiser, maps.UNET, models.denoiser),
        (ours.reference, maps.REFERENCE_UNET, models.reference),
        (ours.sketch_guider, maps.SKETCH_GUIDER, models.sketch_guider),
        (ours.instance_guider, maps.CONTROLNET, models.multi_guider),
    ):
        found = {key: tensor.numpy() for key, tensor in oracle.state_dict().items()}
        headless = {
            k: v for k, v in found.items() if not k.startswith(("conv_norm_out", "conv_out"))
        }
        weights = headless if oracle is models.reference else found
        weightmap.load_state_dict(network, weight_map, weights, "release")
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    given = Conditions(
        canvas_latents=randn(1, 4, 16, 16),
        reference_context=randn(2, 1, CONTEXT),
        context=randn(2, 1, CONTEXT),
        sketch=randn(1, 3, 128, 192),
        guidance=randn(1, DINO_WIDTH, 128, 192),
    )
    latents = randn(1, 4, 16, 24)
    theirs = GuidedDenoiser(models, given, None)(latents, torch.tensor(501)).eps
    found = evaluate(
        ours,
        channels_last(given.canvas_latents),
        jnp.asarray(given.reference_context.numpy()),
        jnp.asarray(given.context.numpy()),
        channels_last(given.sketch),
        channels_last(given.guidance),
        channels_last(latents),
        jnp.asarray([501, 501]),
    )
    for row in range(2):
        assert relative_error(found[row], channels_last(theirs)[row]) < TOLERANCE


def test_the_instance_guider_serves_the_last_rows(monkeypatch):
    """Fewer rows of its hint than of the batch: it sees, and adds to, the last ones."""

    class Echo:
        """A guider whose residuals are its latents and timesteps."""

        def __call__(self, latents, timesteps, hint, caches):
            return Residuals((latents, hint), latents * timesteps[:, None, None, None])

    model = object.__new__(MagicColor)
    model.__dict__.update(sketch_guider=Echo(), instance_guider=Echo())
    latents = jnp.arange(3.0).reshape(3, 1, 1, 1) + 1
    hints = jnp.full((3, 1, 1, 1), 10.0), jnp.full((2, 1, 1, 1), 100.0)
    sketch, instance = (Guide(hint, ()) for hint in hints)
    timesteps = jnp.asarray([1, 2, 3])
    residuals = model.residuals(latents, timesteps, Conditioning((), sketch, instance, None))
    assert np.array_equal(residuals.down[0].ravel(), [1, 4, 6])
    assert np.array_equal(residuals.down[1].ravel(), [10, 110, 110])
    assert np.array_equal(residuals.mid.ravel(), [1, 8, 18])
    alone = model.residuals(latents, timesteps, Conditioning((), sketch, None, None))
    assert np.array_equal(alone.down[0], latents)


@pytest.mark.parametrize("name", ["reference", "sketch_guider", "instance_guider"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", (16, 32, 32, 64)), ("layers", 1), ("context", 48), ("in_channels", 9)],
)
def test_networks_must_pair_with_the_denoiser(name, field, value):
    good = MagicColorConfig.nano()
    odd = dataclasses.replace(getattr(good, name), **{field: value})
    with pytest.raises(ValueError, match=f"{name} must pair .* expected {field} "):
        dataclasses.replace(good, **{name: odd})


def test_parts_may_be_absent():
    cfg = MagicColorConfig.nano(reference=None, instance_guider=None)
    model = abstract(MagicColor, cfg)
    assert model.reference is None
    assert model.instance_guider is None
    assert model.context is None


def test_the_released_model():
    cfg = MagicColorConfig.sd15()
    assert cfg.denoiser == UNetConfig.sd15()
    assert cfg.reference == UNetConfig.sd15(head=False)
    assert cfg.instance_guider == ControlNetConfig.multi()
