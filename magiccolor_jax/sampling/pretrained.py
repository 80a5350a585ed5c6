"""From a model's folder to networks in memory."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, Sharding
from jaxtyping import Array, Float

from magiccolor_jax.checkpoint import ModelConfig, fill_network, load_network
from magiccolor_jax.conditioning.assemble import Encoders, uses_clip, uses_reference
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.encoders.dinov2_config import DINOv2Config
from magiccolor_jax.models.magiccolor import MagicColor, MagicColorConfig
from magiccolor_jax.nn.abstract import abstract
from magiccolor_jax.parallel.mesh import replicated
from magiccolor_jax.precision import Precision
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.sampler import Networks
from magiccolor_jax.types import NullContexts

TRAINABLE = ("denoiser", "reference", "sketch_guider", "instance_guider", "context")
"""Files that together are a `MagicColor`; only the denoiser and the sketch guider must be there."""

NULL_TEXT = {"reference": ("text_encoder", "clip_text"), "denoiser": ("clip_text", "text_encoder")}
"""Which text encoder gives whose null token: the release's choice, then the only one there is."""


def load_networks(
    directory: Path, config: ModelConfig, recipe: Recipe, precision: Precision, mesh: Mesh
) -> Networks:
    """Loads what sampling runs, a copy on every device of the mesh.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: config.json lacks a network that sampling needs, or a file does not fit.
    """
    needed = ["denoiser", "sketch_guider", "vae", "dinov2"]
    needed += ["clip_vision"] if uses_clip(recipe) else ["context"]
    if missing := [name for name in needed if name not in config.networks]:
        raise ValueError(
            f"{directory}: sampling under this recipe needs {needed}, but config.json "
            f"lacks {missing}: convert a complete release, or choose another recipe"
        )
    sizes = {name: with_precision(cfg, precision) for name, cfg in config.networks.items()}
    everywhere = replicated(mesh)
    parts: dict[str, Any] = {name: sizes.get(name) for name in TRAINABLE}
    if not uses_reference(recipe):
        parts["reference"] = None
    model: Any = abstract(MagicColor, MagicColorConfig(**parts))
    for name in TRAINABLE:
        if parts[name] is not None:
            path = directory / f"{name}.safetensors"
            fill_network(getattr(model, name), path, sharding=everywhere)

    def load(name: str) -> Any:
        return load_network(directory, name, sizes[name], sharding=everywhere)

    clip = load("clip_vision") if uses_clip(recipe) else None
    dinov2 = load_dinov2(directory, sizes["dinov2"], recipe, sharding=everywhere)
    return Networks(model, Encoders(load("vae"), clip), dinov2)


def load_dinov2(
    directory: Path, cfg: DINOv2Config, recipe: Recipe, *, sharding: Sharding
) -> DINOv2:
    """DINOv2, rounded as the recipe says.

    Raises:
        FileNotFoundError, ValueError: as `fill_network`.
    """
    dinov2: Any = load_network(directory, "dinov2", cfg, sharding=sharding)
    if recipe.dino_weights == "float16_rounded":
        round_to_float16(dinov2)
    return dinov2


def with_precision(cfg: Any, precision: Precision) -> Any:
    """A network's config under another precision."""
    return dataclasses.replace(cfg, **precision._asdict())


def round_to_float16(module: nnx.Module) -> None:
    """Rounds every parameter as the release's half-precision DINOv2 does (release.md §4)."""
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda x: x.astype(jnp.float16).astype(x.dtype), state))


def load_null_contexts(directory: Path, config: ModelConfig, recipe: Recipe) -> NullContexts:
    """The unconditional half's context: the empty prompt's first token (release.md §2.3).

    Under context `dinov2` it is the absence of tokens: zeros, which no text encoder is needed for.

    Raises:
        ValueError: the context is CLIP's and the model has no text encoder.
    """
    if not uses_clip(recipe):
        width = config.networks["denoiser"].context
        return NullContexts(*[jnp.zeros((1, 1, width))] * 2)
    tokens: dict[str, Array] = {}
    chosen = {}
    for role, choices in NULL_TEXT.items():
        present = [name for name in choices if name in config.networks]
        if not present:
            raise ValueError(
                f"{directory}: context 'clip' needs one of {choices} for the unconditional half of "
                "guidance, config.json has none: convert a complete release"
            )
        chosen[role] = present[0]
        if present[0] not in tokens:
            tokens[present[0]] = _empty_prompt(directory, present[0], config)
    return NullContexts(**{role: tokens[name] for role, name in chosen.items()})


def _empty_prompt(directory: Path, name: str, config: ModelConfig) -> Float[Array, "1 1 C"]:
    cfg = config.networks[name]
    network = load_network(directory, name, cfg)
    return nnx.jit(lambda net, ids: net(ids))(network, jnp.array([cfg.empty_prompt]))[:, :1]
