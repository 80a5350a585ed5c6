"""From a model's folder to networks: what the recipe changes at load."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.case_folders import write_our_case

from magiccolor_jax.checkpoint import load_network, read_config, save_network, write_config
from magiccolor_jax.models.context import ContextConfig, ContextEncoder
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.parallel.mesh import data_mesh
from magiccolor_jax.precision import for_inference
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.colorizer import Colorizer
from magiccolor_jax.sampling.pretrained import load_networks, load_null_contexts

pytestmark = pytest.mark.usefixtures("compile_quickly")


def prompt_token(folder, name):
    """The first token of the empty prompt by one of the text encoders."""
    cfg = read_config(folder).networks[name]
    return load_network(folder, name, cfg)(jnp.array([cfg.empty_prompt]))[:, :1]


def test_each_role_has_its_text_encoder(nano_model):
    nulls = load_null_contexts(nano_model, read_config(nano_model), Recipe.paper())
    sd15, clip = (prompt_token(nano_model, name) for name in ("text_encoder", "clip_text"))
    assert np.abs(sd15 - clip).max() > 0.1
    assert np.allclose(nulls.reference, sd15, atol=1e-5)
    assert np.allclose(nulls.denoiser, clip, atol=1e-5)


@pytest.mark.parametrize("only", ["text_encoder", "clip_text"])
def test_the_only_text_encoder_serves_both(nano_model, only):
    config = read_config(nano_model)
    other = {"text_encoder": "clip_text", "clip_text": "text_encoder"}[only]
    networks = {name: cfg for name, cfg in config.networks.items() if name != other}
    nulls = load_null_contexts(
        nano_model, dataclasses.replace(config, networks=networks), Recipe.paper()
    )
    for token in nulls:
        assert np.allclose(token, prompt_token(nano_model, only), atol=1e-5)


def test_without_a_text_encoder_guidance_has_no_other_half(nano_model):
    config = read_config(nano_model)
    networks = {k: v for k, v in config.networks.items() if "text" not in k}
    bare = dataclasses.replace(config, networks=networks)
    with pytest.raises(ValueError, match="needs one of .*text_encoder"):
        load_null_contexts(nano_model, bare, Recipe.paper())
    nulls = load_null_contexts(nano_model, bare, Recipe(context="dinov2"))
    assert not any(token.any() for token in nulls)


@pytest.mark.parametrize("recipe", [Recipe.paper(), Recipe.release()], ids=["paper", "release"])
def test_dinov2_is_rounded_where_the_recipe_says_so(nano_model, recipe):
    config, precision = read_config(nano_model), for_inference("float32")
    loaded = load_networks(nano_model, config, recipe, precision, data_mesh())
    stored = load_network(nano_model, "dinov2", config.networks["dinov2"])
    pairs = [jax.tree.leaves(nnx.state(net, nnx.Param)) for net in (stored, loaded.dinov2)]
    exact = all(np.array_equal(x, y) for x, y in zip(*pairs, strict=True))
    rounded = all(np.array_equal(np.float32(np.float16(x)), y) for x, y in zip(*pairs, strict=True))
    release = recipe == Recipe.release()
    assert (exact, rounded) == (not release, release)


@pytest.mark.parametrize(
    ("quantise", "values"), [("round", [0, 1, 255, 255, 0]), ("truncate", [0, 0, 254, 255, 0])]
)
def test_floats_become_bytes_as_the_recipe_says(nano_model, quantise, values):
    colorizer = Colorizer.from_pretrained(nano_model, recipe=Recipe(quantise=quantise))
    floats = np.array([0.4, 0.6, 254.9, 300.0, -7.0], np.float32)
    found = colorizer._quantise(np.repeat(floats[None, :, None], 3, axis=-1))
    assert found[0, :, 1].tolist() == values


@pytest.fixture(scope="module")
def with_context(nano_model, tmp_path_factory):
    """The nano model with the token MLP of context `dinov2`."""
    folder = tmp_path_factory.mktemp("context") / "model"
    shutil.copytree(nano_model, folder)
    config = read_config(folder)
    cfg = ContextConfig.nano()
    network = abstract(ContextEncoder, cfg)
    random = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(random.normal(0, 0.3, x.shape), x.dtype)  # noqa: E731
    nnx.update(network, jax.tree.map(draw, nnx.state(network, nnx.Param)))
    save_network(folder / "context.safetensors", network)
    write_config(folder, dataclasses.replace(config, networks=config.networks | {"context": cfg}))
    return folder


@pytest.mark.slow
def test_every_context_and_bank_colours_a_page_of_its_own(with_context, tmp_path):
    """What the recipe table promises to run runs, through the loader and to the picture."""
    case = write_our_case(tmp_path / "case")
    choices = [{}, {"context": "dinov2"}, {"reference_bank": False}, {"color_matching": "fixed"}]
    choices += [{"context": "dinov2", "color_matching": "fixed", "uncond_drops": ()}]
    pictures = []
    for choice in choices:
        colorizer = Colorizer.from_pretrained(with_context, recipe=choice)
        pictures += colorizer(case, steps=2)
    for index, picture in enumerate(pictures):
        assert picture.std() > 5
        for other in pictures[:index]:
            assert np.abs(picture.astype(int) - other).max() > 5


def test_without_the_token_mlp_the_error_names_it(nano_model):
    with pytest.raises(ValueError, match=r"lacks \['context'\]"):
        Colorizer.from_pretrained(nano_model, recipe={"context": "dinov2"})
