"""PyTorch's side of scripts/parity.py, in a process of its own.

    python scripts/parity_torch.py networks|samples JOB.json

Outputs are named `variant/tensor` and channels last, one file per network and page.
"""

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from oracles.pixels import IMAGENET
from oracles.release import LATENT_SCALE, sample
from oracles.release_parts import (
    BankAttention,
    guidance_map,
    processing_with,
    reference_features,
    transformer_blocks,
)
from parity_job import Job, read_job
from random_inputs import Arrays, load, save
from torch import Tensor, nn
from torch_release import TorchRelease, channels_first, channels_last, to_release

Named = Iterator[tuple[str, Tensor]]
Inputs = dict[str, Tensor]
Earlier = Callable[[str], Inputs]
"""Name of a network -> what this side has saved of it."""


def _reference(model: Any, x: Inputs, earlier: Earlier) -> Named:
    features = reference_features(model, x["latents"][:1], x["context"])
    for index, hidden in enumerate(features.bank.values()):
        yield f"16 features/{index:02}", hidden
    yield "match/match", features.match


def _sketch_guider(model: Any, x: Inputs, earlier: Earlier) -> Named:
    return _guided("sketch", model, x, x["sketch"])


def _instance_guider(model: Any, x: Inputs, earlier: Earlier) -> Named:
    tokens = model.dino_adapter(x["patches"].flatten(1, 2))
    picture = guidance_map(tokens, x["id_map"])
    yield from _guided("adapter and map", model, x, picture.expand(2, -1, -1, -1))


def _guided(variant: str, model: Any, x: Inputs, picture: Tensor) -> Named:
    out = model(x["latents"], x["timesteps"], x["context"], picture)
    for index, down in enumerate(out.down_block_res_samples):
        yield f"{variant}/down{index:02}", down
    yield f"{variant}/mid", out.mid_block_res_sample


def _denoiser(model: Any, x: Inputs, earlier: Earlier) -> Named:
    features = earlier("reference")
    guiders = [earlier(name).values() for name in ("sketch_guider", "instance_guider")]
    *down, middle = (a + b for a, b in zip(*guiders, strict=True))
    # The mid block is registered last but runs before the up blocks.
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    names = sorted(transformer_blocks(model), key=lambda name: order[name.split(".")[0]])
    banks = {
        name: BankAttention(features[f"16 features/{index:02}"][1:])
        for index, name in enumerate(names)
    }
    variants = {"plain": (False, False), "residuals": (True, False), "with bank": (True, True)}
    for variant, (residuals, bank) in variants.items():
        added = {
            "down_block_additional_residuals": list(down),
            "mid_block_additional_residual": middle,
        }
        with processing_with(model, banks) if bank else contextlib.nullcontext():
            out = model(x["latents"], x["timesteps"], x["context"], **(added if residuals else {}))
        yield f"{variant}/sample", out.sample


def _vae(model: Any, x: Inputs, earlier: Earlier) -> Named:
    posterior = model.encode(x["sketch"][:1]).latent_dist
    yield "encode/mean", posterior.mean * LATENT_SCALE
    yield "encode/std", posterior.std * LATENT_SCALE
    yield "decode/pixels", model.decode(x["latents"][:1] / LATENT_SCALE).sample


def _clip_vision(model: Any, x: Inputs, earlier: Earlier) -> Named:
    yield "image_embeds/embedding", model(x["clip_pixels"]).image_embeds


def _clip_text(model: Any, x: Inputs, earlier: Earlier) -> Named:
    yield "last hidden/hidden", model(x["clip_text_ids"]).last_hidden_state


def _text_encoder(model: Any, x: Inputs, earlier: Earlier) -> Named:
    yield "last hidden/hidden", model(x["text_encoder_ids"]).last_hidden_state


def _dinov2(model: Any, x: Inputs, earlier: Earlier) -> Named:
    cls, patches = model(x["reference_pixels"])
    side = x["reference_pixels"].shape[-1]
    yield f"cls at {side} px/cls", cls
    yield f"patches at {side} px/patches", patches


def _vgg19(model: nn.Sequential, x: Inputs, earlier: Earlier) -> Named:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    hidden = ((x["sketch"][:1] + 1) / 2 - mean) / deviation
    for name, layer in model.named_children():
        hidden = layer(hidden)
        if name.startswith("relu") and name.endswith("_1"):
            yield f"five activations/{name}", hidden


NETWORKS: dict[str, Callable[..., Named]] = {
    "reference": _reference,
    "sketch_guider": _sketch_guider,
    "instance_guider": _instance_guider,
    "denoiser": _denoiser,
    "vae": _vae,
    "clip_vision": _clip_vision,
    "clip_text": _clip_text,
    "text_encoder": _text_encoder,
    "dinov2": _dinov2,
    "vgg19": _vgg19,
}
"""Name in the JAX folder -> named outputs of (network, inputs, what is saved of other networks)."""

ORACLE_NAMES = {"instance_guider": "multi_guider", "dinov2": "dino"}
"""Names of `ReleaseModels` that are not the JAX folder's."""

DEPTHS = (2, 2, 4, 4, 4)
"""VGG-19's convolutions per block (arXiv:1409.1556, table 1, column E)."""


def vgg19(state: Inputs) -> nn.Sequential:
    """torchvision's vgg19.features with its layers called `conv1_1`, `relu1_1`, ... `pool5`."""
    weights = iter([key for key in state if key.startswith("features.") and "weight" in key])
    layers = {}
    for block, depth in enumerate(DEPTHS, 1):
        for index in range(1, depth + 1):
            key = next(weights)
            outputs, inputs, *_ = state[key].shape
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            bias = state[key.replace("weight", "bias")]
            convolution.load_state_dict({"weight": state[key], "bias": bias})
            layers |= {f"conv{block}_{index}": convolution, f"relu{block}_{index}": nn.ReLU()}
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    return nn.Sequential(OrderedDict(layers))


@torch.inference_mode()
def run_networks(job: Job, release: TorchRelease) -> None:
    """Saves the outputs of every network, one network in memory at a time."""
    for network, page in job.networks:
        if network == "vgg19":
            model = vgg19(torch.load(job.vgg19_weights, weights_only=True))
        else:
            model = release.only(ORACLE_NAMES.get(network, network))
        inputs = {name: channels_first(array) for name, array in load(job.inputs(page)).items()}
        # A set of tokens per instance has four axes too, but is no picture.
        inputs["patches"] = torch.from_numpy(load(job.inputs(page))["patches"])

        def earlier(other: str, page=page) -> Inputs:
            arrays = load(job.output("torch", other, page))
            return {name: channels_first(array) for name, array in arrays.items()}

        outputs: Arrays = {
            name: channels_last(tensor)
            for name, tensor in NETWORKS[network](model, inputs, earlier)
        }
        save(job.output("torch", network, page), outputs)
        del model


def run_samples(job: Job, release: TorchRelease) -> None:
    """Saves the whole guided samples; what is constant over the steps is computed once."""
    for wanted in job.samples:
        inputs, noise = to_release(load(job.case(wanted.page)))
        models: Any = release  # the networks under the same names, one stage in memory at a time
        found = sample(
            models,
            inputs,
            noise,
            steps=wanted.steps,
            scale=job.scale,
            matching=wanted.matching,
            hoisted=True,
        )
        outputs = {"latents": channels_last(found.latents), "pixels": channels_last(found.pixels)}
        if found.nearest is not None:
            outputs["nearest"] = torch.stack(found.nearest).numpy()
        save(job.sampled("torch", wanted), outputs)


if __name__ == "__main__":
    given = read_job(sys.argv[2])
    {"networks": run_networks, "samples": run_samples}[sys.argv[1]](
        given, TorchRelease(given.release, given.config.networks["dinov2"])
    )
