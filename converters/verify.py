"""`--verify`: the same random input through PyTorch's network and ours, in a process each.

PyTorch's side (verify_torch.py) reads the source's own files and builds diffusers' or transformers'
classes from the sizes; nothing but the names of tensors is shared with our side.

    python -m converters.verify torch|jax JAX_FOLDER SOURCE_FOLDER OUTPUT_FOLDER
"""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from converters.folder import open_folder
from converters.plan import Plan
from converters.to_torch import kind_of
from magiccolor_jax import checkpoint
from magiccolor_jax.segment.prompt_encoder import NO_POINT

Arrays = dict[str, np.ndarray]
Named = Iterator[tuple[str, Any]]

LIMIT = 1e-4
"""Largest difference, relative to the largest value, that rounding explains."""

LATENT = (8, 16)
"""Height and width of the latents: small, not square, divisible by three halvings."""


LINES: dict[str, Callable[[Any], tuple[int, ...]]] = {
    "anime2sketch": lambda config: (1, config.step, 2 * config.step, 3),
    "sketch_keras": lambda config: (1, 48, 80, 1),
    "informative_drawings": lambda config: (1, 52, 68, 3),
}
"""Kind of an extractor of line art -> shape of its input."""


def check_installed() -> None:
    """Raises ImportError where the extra `parity` is not installed."""
    for module in ("torch", "diffusers", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"--verify needs {module}: pip install 'magiccolor_jax[parity]'")


def check_kinds(plan: Plan) -> None:
    """Raises ValueError where a network is of no library that the extra `parity` brings."""
    unknown = [
        net.stem for source in plan.sources for net in source.networks if net.kind not in JAX
    ]
    if unknown:
        raise ValueError(
            f"--verify: {', '.join(unknown)}: no library of the extra `parity` has this network: "
            "leave it out (stored outputs of the official packages test the parity)"
        )


def verify(plan: Plan, folder: Path) -> None:
    """Compares every network of a converted folder with PyTorch, and prints a table.

    Raises:
        ValueError: a network differs by more than `LIMIT`.
    """
    differences = compare(folder, plan.root, list(plan.model.networks))
    worst = {stem: float(np.max(list(each.values()))) for stem, each in differences.items()}
    for stem, difference in worst.items():
        print(f"{stem:24} largest relative difference {difference:.1e}")
    if wrong := [stem for stem, difference in worst.items() if not difference <= LIMIT]:
        raise ValueError(f"{folder}: differs from PyTorch by more than {LIMIT}: {wrong}")


def compare(folder: Path, root: Path, stems: list[str]) -> dict[str, dict[str, float]]:
    """Runs every network of a converted folder on both sides.

    Args:
        root: the folder that it was converted from.

    Returns:
        Network -> output -> largest difference, relative to PyTorch's largest value.

    Raises:
        ValueError: a side failed, or the two have not the same outputs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for side in ("torch", "jax"):
            command = [sys.executable, "-m", "converters.verify", side, folder, root, scratch]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                raise ValueError(f"--verify: the {side} side failed:\n{done.stderr[-2000:]}")
        return {stem: differences(Path(scratch), stem) for stem in stems}


def differences(scratch: Path, stem: str) -> dict[str, float]:
    """Output -> largest difference, relative to PyTorch's largest value; NaN if any is.

    Raises:
        ValueError: the two sides have not the same outputs.
    """
    ours, theirs = (dict(np.load(result_path(scratch, side, stem))) for side in ("jax", "torch"))
    shapes = [{name: value.shape for name, value in side.items()} for side in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"--verify: {stem}: outputs {shapes[0]} in JAX, {shapes[1]} in PyTorch")
    return {
        name: float(np.abs(ours[name] - x).max() / np.abs(x).max()) for name, x in theirs.items()
    }


def result_path(scratch: Path, side: str, stem: str) -> Path:
    """Where a side leaves a network's outputs."""
    return scratch / f"{side}-{stem.replace('/', '-')}.npz"


def random_inputs(config: Any) -> Arrays:
    """The same random input on both sides, channels last."""
    generator, kind = np.random.default_rng(0), kind_of(config)

    def normal(*shape: int) -> Float[np.ndarray, "..."]:
        return generator.standard_normal(shape, np.float32)

    height, width = LATENT
    if kind in ("unet", "controlnet"):
        inputs = {
            "latents": normal(2, height, width, config.in_channels),
            "timesteps": np.array([981, 1]),
            "context": normal(2, 3, config.context),
        }
        if kind == "controlnet":
            inputs["hint"] = normal(2, 8 * height, 8 * width, config.conditioning_channels)
            inputs["tokens"] = normal(2, 5, config.conditioning_channels)
        return inputs
    if kind == "vae":
        step = config.reduction
        return {
            "pixels": normal(1, 4 * step, 6 * step, config.picture_channels),
            "latents": normal(1, 4, 6, config.latent_channels),
        }
    if kind == "clip_text":
        ids = generator.integers(0, config.vocab_size, (2, config.max_position_embeddings - 1))
        ids[:, -1] = config.eos_token_id
        return {"ids": ids}
    if kind == "context":
        return {"tokens": normal(2, 5, config.inputs)}
    if kind == "vgg19":
        return {"pixels": generator.random((1, 48, 64, 3), np.float32)}
    if kind in LINES:
        return {"pixels": normal(*LINES[kind](config))}
    inputs = {"pixels": normal(1, config.image_size, config.image_size, 3)}
    if kind == "sam":
        inputs["points"] = config.image_size * generator.random((2, 1, 2), np.float32)
        inputs["labels"] = np.array([[1], [0]])
        corners = config.image_size * generator.random((2, 2, 2), np.float32)
        inputs["boxes"] = np.sort(corners, axis=1).reshape(2, 4)
        inputs["earlier"] = 4 * normal(1, config.mask_size, config.mask_size)
    return inputs


def _run_jax(folder: Path, stem: str, config: Any) -> Arrays:
    """Our network's outputs."""
    network, inputs = checkpoint.load_network(folder, stem, config), random_inputs(config)
    return {name: np.asarray(value) for name, value in JAX[kind_of(config)](network, inputs)}


def _jax_unet(network: Any, inputs: Arrays) -> Named:
    caches = network.project(inputs["context"])
    out = network(inputs["latents"], inputs["timesteps"], caches)
    yield from ((f"hidden{i}", hidden) for i, hidden in enumerate(out.features.hidden))
    if out.sample is not None:
        yield "sample", out.sample


def _jax_controlnet(network: Any, inputs: Arrays) -> Named:
    caches, hint = network.project(inputs["context"]), network.embed(inputs["hint"])
    out = network(inputs["latents"], inputs["timesteps"], hint, caches)
    yield from ((f"down{i}", down) for i, down in enumerate(out.down))
    yield "mid", out.mid
    if network.cfg.adapter:
        yield "adapter", network.adapt(inputs["tokens"])


def _jax_vae(network: Any, inputs: Arrays) -> Named:
    posterior = network.encode(inputs["pixels"])
    yield "mean", posterior.mean
    yield "std", posterior.std
    yield "picture", network.decode(inputs["latents"])


def _jax_vgg19(network: Any, inputs: Arrays) -> Named:
    yield from zip(network.cfg.layers, network(inputs["pixels"]), strict=True)


def _jax_sam(network: Any, inputs: Arrays) -> Named:
    embedding = network.embed(inputs["pixels"])
    yield "embedding", embedding
    points, labels = inputs["points"], inputs["labels"]
    corners, ends = inputs["boxes"].reshape(-1, 2, 2), np.broadcast_to([2, 3], (len(points), 2))
    ended = (
        np.pad(points, ((0, 0), (0, 1), (0, 0))),
        np.pad(labels, ((0, 0), (0, 1)), constant_values=NO_POINT),
    )
    boxed = np.concatenate([points, corners], axis=1), np.concatenate([labels, ends], axis=1)
    earlier = np.repeat(inputs["earlier"], len(points), axis=0)
    prompts = {"points": (*ended, None), "boxes": (*boxed, None), "masks": (*ended, earlier)}
    for name, prompt in prompts.items():
        found = network.decode(embedding[0], *prompt)
        yield f"masks of {name}", np.moveaxis(found.logits[:, 1:], 1, -1)
        yield f"quality of {name}", found.quality[:, 1:]


def _jax_lines(network: Any, inputs: Arrays) -> Named:
    yield "lines", nnx.jit(lambda network, pixels: network(pixels))(network, inputs["pixels"])


JAX: dict[str, Callable[[Any, Arrays], Named]] = {
    "unet": _jax_unet,
    "controlnet": _jax_controlnet,
    "context": lambda network, inputs: iter([("context", network(inputs["tokens"]))]),
    "vae": _jax_vae,
    "clip_vision": lambda network, inputs: iter([("embedding", network(inputs["pixels"]))]),
    "clip_text": lambda network, inputs: iter([("hidden", network(inputs["ids"]))]),
    "dinov2": lambda network, inputs: iter(network(inputs["pixels"])._asdict().items()),
    "vgg19": _jax_vgg19,
    "sam": _jax_sam,
    **dict.fromkeys(LINES, _jax_lines),
}
"""Kind -> its named outputs, channels last."""


def _main(side: str, folder: Path, root: Path, scratch: Path) -> None:
    """One side of the comparison: every network of the folder, one after another."""
    opened = open_folder(folder)
    for stem, config in opened.model.networks.items():
        if side == "jax":
            outputs = _run_jax(folder, stem, config)
        else:
            from converters import verify_torch

            source = next(s for s in opened.sources if stem in s.networks)
            outputs = verify_torch.run(root, source, folder / f"{stem}.safetensors", config)
        np.savez(result_path(scratch, side, stem), allow_pickle=False, **outputs)


if __name__ == "__main__":
    _main(sys.argv[1], *map(Path, sys.argv[2:]))
