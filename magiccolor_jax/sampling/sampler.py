"""The jitted programs of sampling, and what is constant computed once.

Four programs, each compiled once per shape and never for other steps, guidance scales, seeds or
numbers of instances within a bucket: reference features, conditions, the denoising loop, decoding.
Every device of the mesh runs them on its own share of the cases, without talking to the others.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt32

from magiccolor_jax.conditioning.assemble import Encoders, assemble, mixes_halves
from magiccolor_jax.diffusion.samplers import SamplerState, StepTable, step
from magiccolor_jax.encoders.dinov2 import DINOv2
from magiccolor_jax.models.color_matching import release_order
from magiccolor_jax.models.magiccolor import Conditioning, MagicColor
from magiccolor_jax.parallel.mesh import DATA, by_case, data_mesh, replicated
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.types import Batch, Draws, NullContexts, TokenGrid


class Networks(NamedTuple):
    """Everything that sampling runs."""

    model: MagicColor
    encoders: Encoders
    dinov2: DINOv2


class Sampler:
    """Conditions and denoises batches of one model under one recipe."""

    def __init__(
        self, networks: Networks, nulls: NullContexts, recipe: Recipe, mesh: Mesh | None = None
    ):
        """Puts the parameters on every device of the mesh (default: all of this process')."""
        self.recipe = recipe
        self.mesh = mesh or data_mesh()
        self.devices = self.mesh.size
        graph, params = nnx.split(dict(networks._asdict()))
        self._params = jax.device_put((params, nulls), replicated(self.mesh))
        model, vae = networks.model, networks.encoders.vae
        self._latent = (vae.cfg.reduction, vae.cfg.latent_channels)
        self._dino = (networks.dinov2.cfg.hidden_size, networks.dinov2.cfg.patch_size)
        self._match_reduction = vae.cfg.reduction * model.denoiser.cfg.match_reduction
        programs = Programs(graph, recipe)
        self._encode = self._jit(programs.encode, cases=1)
        self._condition = {
            guided: self._jit(functools.partial(programs.condition, guided=guided), cases=3)
            for guided in (False, True)
        }
        self._denoise = {
            guided: self._jit(functools.partial(programs.denoise, guided=guided), 2, shared=4)
            for guided in (False, True)
        }
        self._decode = self._jit(programs.decode, cases=1)

    def _jit(self, function: Callable, cases: int, shared: int = 0) -> Callable:
        """Jits function(params, *cases, *shared) with its cases dealt out over the devices."""
        specs = (P(), *[P(DATA)] * cases, *[P()] * shared)
        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=P(DATA), check_vma=False
        )
        # Else one device's outputs come back as replicated, and the loop compiles for those too.
        return jax.jit(mapped, out_shardings=by_case(self.mesh))

    def token_shape(self, reference: int) -> tuple[int, int]:
        """Width of DINOv2's tokens and side of their grid for inputs of side `reference`."""
        width, patch = self._dino
        return width, reference // patch

    def needs_guidance(self, scale: float) -> bool:
        """Whether the unconditional half is run: not at scale 1, unless matching mixes both."""
        return scale != 1.0 or mixes_halves(self.recipe)

    def compilations(self) -> int:
        """How many programs have been compiled so far."""
        programs = [self._encode, self._decode, *self._condition.values(), *self._denoise.values()]
        return sum(program._cache_size() for program in programs)

    def encode_references(
        self, pixels: Float[np.ndarray, "n R R 3"]
    ) -> tuple[Float[np.ndarray, "n C"], Float[np.ndarray, "n G G C"]]:
        """DINOv2 features of n pictures (n a multiple of the devices), on the host for caching."""
        features = self._encode(self._params, self._deal(pixels))
        return np.asarray(features.cls), np.asarray(features.patches)

    def draw(self, seeds: UInt32[np.ndarray, " B"], page: tuple[int, int], canvas: int) -> Draws:
        """Everything random about B cases; a case's draws depend on its seed alone.

        Args:
            page: height and width in pixels.
            canvas: side in pixels.
        """
        reduction, channels = self._latent
        return draw_cases(
            jnp.asarray(seeds, jnp.uint32),
            noise=(page[0] // reduction, page[1] // reduction, channels),
            canvas=(canvas // reduction, canvas // reduction, channels),
            positions=(canvas // self._match_reduction) ** 2,
        )

    def condition(
        self, batch: Batch, tokens: TokenGrid, draws: Draws, *, guided: bool
    ) -> Conditioning:
        """What is constant over the steps; B a multiple of the devices."""
        # DINOv2's input has served (its features are `tokens`): do not send it again.
        light = batch._replace(reference_pixels=np.zeros((len(batch.sketch), 0), np.float32))
        return self._condition[guided](
            self._params, self._deal(light), self._deal(tokens), self._deal(draws)
        )

    def denoise(
        self,
        conditioning: Conditioning,
        noise: Float[Array, "B h w C"],
        table: StepTable,
        guidance: float,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> Float[Array, "B h w C"]:
        """The sampling loop.

        Args:
            conditioning: made with `guided=needs_guidance(guidance)`.
            guidance: scale s of eps_u + s (eps_c - eps_u), s >= 0.
            on_step: called with the number of finished steps. The loop is then left after each
                step (the same program, other bounds); without it everything is one launch.
        """
        run = functools.partial(
            self._denoise[self.needs_guidance(guidance)], self._params, conditioning
        )
        table = jax.device_put(table, replicated(self.mesh))
        noise = self._deal(noise)
        state = SamplerState(noise, jnp.zeros_like(noise))
        total, scale = int(table.steps), np.float32(guidance)
        if on_step is None:
            return run(state, table, scale, np.int32(0), np.int32(total)).latents
        for index in range(total):
            state = run(state, table, scale, np.int32(index), np.int32(index + 1))
            jax.block_until_ready(state.latents)
            on_step(index + 1)
        return state.latents

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Pictures in [-1, 1]."""
        return self._decode(self._params, latents)

    def _deal(self, tree: Any) -> Any:
        return jax.device_put(tree, by_case(self.mesh))


@functools.partial(jax.jit, static_argnames=("noise", "canvas", "positions"))
def draw_cases(
    seeds: UInt32[Array, " B"],
    *,
    noise: tuple[int, ...],
    canvas: tuple[int, ...],
    positions: int,
) -> Draws:
    """Everything random about B cases, each from its own seed.

    Args:
        noise: shape of a case's latent.
        canvas: shape of its canvas latent.
        positions: features of the canvas that colour matching may draw.
    """

    def one_case(seed):
        noise_key, canvas_key, order_key = jax.random.split(jax.random.key(seed), 3)
        return Draws(
            jax.random.normal(noise_key, noise),
            jax.random.normal(canvas_key, canvas),
            release_order(order_key, positions),
        )

    return jax.vmap(one_case)(seeds)


class Programs:
    """The functions that are jitted: parameters first, then cases, then what all cases share."""

    def __init__(self, graph: nnx.GraphDef, recipe: Recipe):
        self.graph, self.recipe = graph, recipe

    def _merge(self, params: Any) -> tuple[Networks, NullContexts]:
        state, nulls = params
        return Networks(**nnx.merge(self.graph, state)), nulls

    def encode(self, params, pixels):
        networks, _ = self._merge(params)
        return networks.dinov2(pixels)

    def condition(self, params, batch, tokens, draws, *, guided):
        networks, nulls = self._merge(params)
        return assemble(
            networks.model,
            networks.encoders,
            batch,
            tokens,
            draws,
            nulls,
            self.recipe,
            guided=guided,
        )

    def denoise(self, params, conditioning, state, table, guidance, start, stop, *, guided):
        networks, _ = self._merge(params)

        def body(index, state):
            rows = jnp.concatenate([state.latents] * 2) if guided else state.latents
            timesteps = jnp.full(rows.shape[0], table.timesteps[index])
            output = networks.model(rows, timesteps, conditioning)
            if guided:
                without, with_conditions = jnp.split(output, 2)
                output = without + guidance * (with_conditions - without)
            return step(table, index, state, output)

        return lax.fori_loop(start, stop, body, state)

    def decode(self, params, latents):
        networks, _ = self._merge(params)
        return jnp.clip(networks.encoders.vae.decode(latents, tile=DECODE_TILE), -1.0, 1.0)


DECODE_TILE = 96
"""Latents per tile side when a page is decoded piecewise: 768 px; the buckets of a 512 px model
(up to 704 px) are decoded whole."""
