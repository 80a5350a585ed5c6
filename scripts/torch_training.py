"""A PyTorch training step of the same networks, to time ours against.

The objective is the tests' oracle (tests/oracles/torch_objective.py); the networks are diffusers',
transformers' and the tests' own with random weights, AdamW is PyTorch's.
"""

from collections.abc import Callable
from typing import Any

import torch
from abstract_training import Networks
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from oracles.dinov2_hub import DINOv2Hub
from oracles.nano import clip_text
from oracles.release import ReleaseModels, with_dino_adapter
from oracles.torch_objective import Drawn, Pictures, Terms, objective, trained
from oracles.vgg import vgg_oracle
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from converters.write_configs import to_hf
from magiccolor_jax.losses.objective import LossConfig


def torch_models(nets: Networks) -> ReleaseModels:
    """Networks of the same sizes, as diffusers and transformers initialise them."""
    sizes, page = nets.trained, nets.sizes.page

    def made(kind: Any, cfg: Any) -> Any:
        return kind.from_config(to_hf(cfg, page=page))

    clip = CLIPVisionConfig(**to_hf(nets.clip, page=page))
    guiders = [
        with_dino_adapter(made(ControlNetModel, cfg))
        for cfg in (sizes.sketch_guider, sizes.instance_guider)
    ]
    text = clip_text(sizes.denoiser.context)  # its one token is a constant of the step
    return ReleaseModels(
        vae=made(AutoencoderKL, nets.vae),
        text_encoder=text,
        clip_text=text,
        clip_vision=CLIPVisionModelWithProjection(clip),
        dino=DINOv2Hub(nets.dinov2),
        reference=made(UNet2DConditionModel, sizes.reference),
        denoiser=made(UNet2DConditionModel, sizes.denoiser),
        sketch_guider=guiders[0],
        multi_guider=guiders[1],
    )


def torch_step(nets: Networks, losses: LossConfig, instances: int) -> Callable[[], float]:
    """A step on random values that returns its loss."""
    models, vgg = torch_models(nets), vgg_oracle(nets.vgg.widths)
    for model in (*models, vgg):
        model.eval().requires_grad_(False)
    parameters = []
    for network in trained(models).values():
        parameters += list(network.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    given = _pictures(nets, instances), _drawn(nets, instances), Terms.of(losses, "epsilon", 0.5)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(models, vgg, *given)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


def _pictures(nets: Networks, instances: int) -> Pictures:
    sizes = nets.sizes
    page, grid = sizes.page, sizes.grid
    owner = torch.ones(1, page, page, dtype=torch.int64)
    for index in range(instances):
        owner[:, :, index * page // instances :] = index + 1
    ends = torch.tensor([0.0, 0.0, grid - 1.0, grid - 1.0])
    return Pictures(
        torch.rand(1, 3, page, page),
        torch.rand(1, 3, sizes.canvas, sizes.canvas),
        torch.rand(1, 3, sizes.clip, sizes.clip),
        torch.rand(1, instances, 3, sizes.reference, sizes.reference),
        owner,
        ends.expand(1, instances, 4),
        torch.ones(1, instances, grid, grid, dtype=torch.bool),
        torch.rand(1, 3, page, page),
    )


def _drawn(nets: Networks, instances: int) -> Drawn:
    side, grid = nets.sizes.page // 8, nets.sizes.grid
    latent = (1, nets.vae.latent_channels, side, side)
    return Drawn(
        torch.tensor([100]),
        torch.randn(latent),
        torch.randn(latent),
        [False],
        torch.rand(1, instances, grid, grid) < 0.1,
        True,
        [(0, 0)],
    )
