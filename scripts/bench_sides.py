"""One measurement of scripts/bench_sampling.py, in a process of its own.

python scripts/bench_sides.py ours|torch SETUP.json RESULT.json
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from random_inputs import case_inputs, parse_page

from magiccolor_jax.checkpoint import read_config

Timings = dict[str, float]

TIMESTEP = 981
"""Any will do: the work does not depend on it."""


def ours(setup: dict[str, Any]) -> Timings:
    """Seconds of each part of our call: the first time (with compiling) and warm."""
    import jax
    from jax_model import load_samplers, padded_tokens, to_batch, to_draws

    from magiccolor_jax.diffusion.samplers import make_table
    from magiccolor_jax.sampling.token_cache import TokenCache

    jax.config.update("jax_compilation_cache_dir", setup["cache"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    folder = Path(setup["model"])
    config = read_config(folder)
    case = case_inputs(config, parse_page(setup["page"]), setup["references"])
    sampler = load_samplers(folder, config, {setup["matching"]})[setup["matching"]]
    batch, draws = to_batch(case, config.sizes.patch), to_draws(case)
    guided = sampler.needs_guidance(setup["scale"])
    table = make_table("ddim", config.schedule, setup["steps"])

    def encode() -> Any:
        cache = TokenCache(sampler.encode_references, devices=sampler.devices)
        return cache.features(list(case["reference_pixels"]))

    def condition() -> Any:
        tokens = padded_tokens(features, batch.valid.shape[1])
        return jax.block_until_ready(sampler.condition(batch, tokens, draws, guided=guided))

    def denoise() -> Any:
        latents = sampler.denoise(conditioning, draws.noise, table, setup["scale"])
        return jax.block_until_ready(latents)

    def decode() -> Any:
        return jax.block_until_ready(sampler.decode(latents))

    found: Timings = {}
    features = _timed(found, "references", encode, setup["repeats"])
    conditioning = _timed(found, "conditions", condition, setup["repeats"])
    latents = _timed(found, "loop", denoise, setup["repeats"])
    found["step"] = found["loop"] / setup["steps"]
    _timed(found, "decode", decode, setup["repeats"])
    return found


def pytorch(setup: dict[str, Any]) -> Timings:
    """Seconds of each part of PyTorch's call, in the release's order and in the hoisted one."""
    import torch
    from oracles.release import GuidedDenoiser
    from torch_release import DENOISING, TorchRelease, to_release

    config = read_config(Path(setup["model"]))
    release = TorchRelease(Path(setup["release"]), config.networks["dinov2"])
    case = case_inputs(config, parse_page(setup["page"]), setup["references"])
    inputs, noise = to_release(case)
    order = noise.order if setup["matching"] == "release" else None
    found: Timings = {}
    conditions = _encoded(found, release, inputs, noise.canvas, setup["repeats"])
    networks: Any = SimpleNamespace(**{name: getattr(release, name) for name in DENOISING})
    for order_of_work, hoisted in (("release", False), ("hoisted", True)):
        build = partial(GuidedDenoiser, networks, conditions, order, hoisted=hoisted)
        denoiser = _timed(found, f"{order_of_work} constant", build, 1)
        step = partial(denoiser, noise.latents, torch.tensor(TIMESTEP))
        _timed(found, f"{order_of_work} step", step, setup["steps"])
    vae = release.only("vae")
    with torch.inference_mode():
        _timed(found, "decode", lambda: vae.decode(noise.latents).sample, setup["repeats"])
    return found


def _encoded(found: Timings, release: Any, inputs: Any, noise: Any, repeats: int) -> Any:
    """The conditions, timed with every network in memory."""
    from oracles.release import encode, rounded_weights
    from torch_release import ENCODING

    adapter = SimpleNamespace(dino_adapter=release.multi_guider.dino_adapter)
    loaded = {name: getattr(release, name) for name in ENCODING}
    networks: Any = SimpleNamespace(**loaded, multi_guider=adapter)
    conditions = _timed(found, "encode", lambda: encode(networks, inputs, noise), repeats)
    # The oracle rounds DINOv2's weights in every call; a program would do it once.
    _timed(found, "rounding", lambda: rounded_weights(networks.dino), repeats)
    found["encode"] -= found.pop("rounding")
    return conditions


def _timed(found: Timings, name: str, call: Callable[[], Any], repeats: int) -> Any:
    """Runs a call once cold and then warm; notes the seconds and returns its value."""
    started = time.perf_counter()
    value = call()
    found[f"first {name}"] = time.perf_counter() - started
    found[name] = _warm(call, repeats)
    return value


def _warm(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call that has run before."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


if __name__ == "__main__":
    timings = {"ours": ours, "torch": pytorch}[sys.argv[1]](
        json.loads(Path(sys.argv[2]).read_text())
    )
    # In kilobytes on Linux.
    timings["peak GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    Path(sys.argv[3]).write_text(json.dumps(timings))
