"""A converted folder in JAX, driven with given draws instead of a seed's."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from random_inputs import Arrays

from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.data.batches import bucket_of, pad_instances
from magiccolor_jax.data.transforms import mask_box
from magiccolor_jax.parallel.mesh import data_mesh
from magiccolor_jax.precision import for_inference
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling.pretrained import load_networks, load_null_contexts
from magiccolor_jax.sampling.sampler import Sampler
from magiccolor_jax.types import Batch, Draws, TokenGrid


def load_samplers(folder: Path, config: ModelConfig, matchings: set[str]) -> dict[str, Sampler]:
    """One sampler of recipe `release` per mode of colour matching, f32, on the same networks."""
    recipe, mesh = Recipe.release(), data_mesh()
    nulls = load_null_contexts(folder, config, recipe)
    networks = load_networks(folder, config, recipe, for_inference("float32"), mesh)
    return {
        name: Sampler(networks, nulls, dataclasses.replace(recipe, color_matching=name), mesh)
        for name in sorted(matchings)
    }


def to_batch(case: Arrays, patch: int) -> Batch:
    """`random_inputs.case_inputs` as a batch of one, instances padded to their bucket.

    Args:
        patch: side of a DINOv2 patch in pixels.
    """
    owner, instances = case["id_map"].astype(np.int32), len(case["reference_pixels"])
    found = [mask_box(owner == index + 1) for index in range(instances)]
    grid = case["reference_pixels"].shape[1] // patch
    batch = Batch(
        sketch=case["sketch"],
        canvas=case["canvas"],
        clip_pixels=case["clip_pixels"],
        reference_pixels=case["reference_pixels"][None],
        instance_map=owner[None],
        boxes=np.array([[box or (0, 0, 0, 0) for box in found]], np.int32),
        roi=np.tile(np.array([0, 0, grid - 1, grid - 1], np.float32), (1, instances, 1)),
        valid=np.array([[box is not None for box in found]]),
    )
    return pad_instances(batch, bucket_of(instances))


def to_draws(case: Arrays) -> Draws:
    """The case's random draws."""
    order = case["order"].astype(np.int32)[None]
    return Draws(*map(jnp.asarray, (case["noise"], case["canvas_noise"], order)))


def padded_tokens(features: list[tuple[np.ndarray, np.ndarray]], bucket: int) -> TokenGrid:
    """One case's DINOv2 features, (cls, patches) per reference, with zeros up to the bucket."""
    cls, patches = (np.stack(each) for each in zip(*features, strict=True))
    missing = bucket - len(cls)

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))[None]

    return TokenGrid(padded(cls), padded(patches))
