"""JAX's side of scripts/parity.py, in a process of its own; it reads what PyTorch's side has saved.

python scripts/parity_jax.py networks|samples JOB.json
"""

import gc
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax_model import load_samplers, padded_tokens, to_batch, to_draws
from parity_job import Job, Sample, read_job
from random_inputs import Arrays, load, save

from magiccolor_jax import checkpoint
from magiccolor_jax.conditioning.instances import guidance_hint, place
from magiccolor_jax.diffusion.samplers import StepTable, make_table
from magiccolor_jax.models import unet
from magiccolor_jax.models.color_matching import Matching, match_release
from magiccolor_jax.models.magiccolor import Conditioning
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.sampler import Sampler
from magiccolor_jax.types import Residuals

Outputs = dict[str, jax.Array]
Earlier = Callable[[str], Arrays]
"""Name of a network -> what PyTorch's side has saved of it."""


def _reference(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    def run(network, latents, context):
        timesteps = np.zeros(len(latents), np.int32)
        return network(latents, timesteps, network.project(context)).features

    latents = np.repeat(x["latents"][:1], 2, axis=0)
    features = nnx.jit(run)(network, latents, x["context"])
    bank = {f"16 features/{i:02}": hidden for i, hidden in enumerate(features.hidden)}
    return bank | {"match/match": features.match}


def _sketch_guider(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    hint = nnx.jit(lambda network, picture: network.embed(picture))(network, x["sketch"])
    return _guided("sketch", network, x, hint)


def _instance_guider(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    instances, grid = x["patches"].shape[:2]
    case = {"reference_pixels": np.zeros((instances, grid, grid, 3), np.float32)}
    pictures = {name: x["sketch"] for name in ("canvas", "clip_pixels")}
    batch = to_batch(x | case | pictures, patch=1)
    tokens = padded_tokens([(each[0, 0], each) for each in x["patches"]], batch.valid.shape[1])

    def hint_of(network, patches):
        boxes, roi, valid = map(jnp.asarray, (batch.boxes, batch.roi, batch.valid))
        instances = jnp.asarray(batch.instance_map)
        where = place(instances, boxes, roi, valid, grid, Recipe.release())
        return guidance_hint(network, patches, where)

    hint = np.asarray(nnx.jit(hint_of)(network, tokens.patches))
    return _guided("adapter and map", network, x, np.repeat(hint, 2, axis=0))


def _guided(variant: str, network: Any, x: Arrays, hint: Any) -> Outputs:
    def run(network, latents, timesteps, context, hint):
        return network(latents, timesteps, hint, network.project(context))

    out = nnx.jit(run)(network, x["latents"], x["timesteps"], x["context"], hint)
    down = {f"{variant}/down{index:02}": each for index, each in enumerate(out.down)}
    return down | {f"{variant}/mid": out.mid}


def _denoiser(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    features = earlier("reference")
    bank = tuple(v[1:] for name, v in features.items() if name.startswith("16 features"))
    guiders = [earlier(name).values() for name in ("sketch_guider", "instance_guider")]
    *down, middle = (a + b for a, b in zip(*guiders, strict=True))
    added = Residuals(tuple(down), middle)

    def run(network, latents, timesteps, context, bank, residuals):
        caches = network.project(context, None, bank)
        return network(latents, timesteps, caches, residuals=residuals).sample

    variants = {"plain": (None, None), "residuals": (None, added), "with bank": (bank, added)}
    inputs = (network, x["latents"], x["timesteps"], x["context"])
    return {
        f"{variant}/sample": nnx.jit(run)(*inputs, *given) for variant, given in variants.items()
    }


def _vae(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    encode = nnx.jit(lambda network, pixels: network.encode(pixels))
    decode = nnx.jit(lambda network, latents: network.decode(latents))
    posterior = encode(network, x["sketch"][:1])
    return {
        "encode/mean": posterior.mean,
        "encode/std": posterior.std,
        "decode/pixels": decode(network, x["latents"][:1]),
    }


def _encoder(output: str, key: str) -> Callable[[Any, Arrays, Earlier], Outputs]:
    """A network of one input and one output."""
    run = nnx.jit(lambda network, given: network(given))
    return lambda network, x, earlier: {output: run(network, x[key])}


def _dinov2(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    found = nnx.jit(lambda network, pixels: network(pixels))(network, x["reference_pixels"])
    side = x["reference_pixels"].shape[1]
    return {f"cls at {side} px/cls": found.cls, f"patches at {side} px/patches": found.patches}


def _vgg19(network: Any, x: Arrays, earlier: Earlier) -> Outputs:
    found = nnx.jit(lambda network, pixels: network(pixels))(network, (x["sketch"][:1] + 1) / 2)
    names = network.cfg.layers
    return {f"five activations/{n}": value for n, value in zip(names, found, strict=True)}


NETWORKS: dict[str, Callable[[Any, Arrays, Earlier], Outputs]] = {
    "reference": _reference,
    "sketch_guider": _sketch_guider,
    "instance_guider": _instance_guider,
    "denoiser": _denoiser,
    "vae": _vae,
    "clip_vision": _encoder("image_embeds/embedding", "clip_pixels"),
    "clip_text": _encoder("last hidden/hidden", "clip_text_ids"),
    "text_encoder": _encoder("last hidden/hidden", "text_encoder_ids"),
    "dinov2": _dinov2,
    "vgg19": _vgg19,
}
"""As in parity_torch.py."""


def run_networks(job: Job) -> None:
    """Saves the outputs of every network, one network in memory at a time."""
    configs = job.config.networks | checkpoint.read_config(job.vgg19_model).networks
    for name, page in job.networks:
        folder = job.vgg19_model if name == "vgg19" else job.model
        network = checkpoint.load_network(folder, name, configs[name])

        def earlier(other: str, page=page) -> Arrays:
            return load(job.output("torch", other, page))

        outputs = NETWORKS[name](network, load(job.inputs(page)), earlier)
        save(job.output("jax", name, page), {k: np.asarray(v) for k, v in outputs.items()})
        del network, outputs
        jax.clear_caches()
        gc.collect()


def run_samples(job: Job) -> None:
    """Saves the whole guided samples."""
    own_nearest: list[np.ndarray] = []
    unet.match_colors = _recording(own_nearest)
    samplers = load_samplers(job.model, job.config, {sample.matching for sample in job.samples})
    for sample in job.samples:
        own_nearest.clear()
        latents, pixels = _sample(job, sample, samplers[sample.matching])
        outputs = {"latents": np.asarray(latents), "pixels": np.asarray(pixels)}
        if sample.matching == "release":
            outputs["nearest"] = np.stack(own_nearest)
        save(job.sampled("jax", sample), outputs)


def _recording(found: list[np.ndarray]) -> Callable[[jax.Array, Matching], jax.Array]:
    """Colour matching as it is told, which also appends what it would have found itself [P]."""

    def match_colors(target: jax.Array, matching: Matching) -> jax.Array:
        _, own = match_release(target, matching._replace(nearest=None))
        jax.debug.callback(lambda nearest: found.append(np.asarray(nearest)[0]), own)
        return match_release(target, matching)[0]

    return match_colors


def _sample(job: Job, sample: Sample, sampler: Sampler) -> tuple[jax.Array, jax.Array]:
    """Latents after the last step, and pixels; matching takes PyTorch's nearest positions."""
    case, config = load(job.case(sample.page)), job.config
    batch, draws = to_batch(case, config.sizes.patch), to_draws(case)
    features = sampler.encode_references(case["reference_pixels"])
    tokens = padded_tokens(list(zip(*features, strict=True)), batch.valid.shape[1])
    guided = sampler.needs_guidance(job.scale)
    conditioning = sampler.condition(batch, tokens, draws, guided=guided)
    table = make_table("ddim", config.schedule, sample.steps)
    if sample.matching == "off":
        latents = sampler.denoise(conditioning, draws.noise, table, job.scale)
    else:
        nearest = load(job.sampled("torch", sample))["nearest"]
        latents = _denoise_told(sampler, conditioning, draws.noise, table, job.scale, nearest)
    return latents, sampler.decode(latents)


def _denoise_told(
    sampler: Sampler,
    conditioning: Conditioning,
    latents: Any,
    table: StepTable,
    scale: float,
    nearest: np.ndarray,
) -> Any:
    """The denoising loop in trajectories of one step, each told its nearest positions [P]."""
    matching: Any = conditioning.matching
    for index, positions in enumerate(nearest.astype(np.int32)):
        told = conditioning._replace(matching=matching._replace(nearest=positions[None]))
        one_step = StepTable(
            np.array(1, np.int32), *(np.roll(column, -index) for column in table[1:])
        )
        latents = sampler.denoise(told, latents, one_step, scale)
        jax.effects_barrier()  # so that what was found arrives in order
    return latents


if __name__ == "__main__":
    {"networks": run_networks, "samples": run_samples}[sys.argv[1]](read_job(sys.argv[2]))
