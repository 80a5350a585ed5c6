"""The guided sample of the PyTorch release, put together from diffusers and transformers parts.

Written from release.md §2-5 and from nothing else: it is what the JAX package is compared with, so
it shares no code with it. One case at a time; NCHW; float32. Rows of a guidance pair are
[unconditional, conditional]. `hoisted=False` computes in the release's order (the reference UNet,
the hint embeddings and everything else at every step); `hoisted=True` does what never changes once.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from oracles.release_parts import (
    MATCHED_BLOCK,
    MATCHED_POINTS,
    BankAttention,
    ColorMatcher,
    guidance_map,
    hooked,
    processing_with,
    reference_features,
    transformer_blocks,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

SD15_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""SD1.5's scheduler_config.json, as far as DDIM reads it (release.md §2.6)."""

LATENT_SCALE = 0.18215


class ReleaseModels(NamedTuple):
    """All networks of a release folder, in eval mode."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    """SD1.5's own: the reference UNet's unconditional token."""
    clip_text: CLIPTextModel
    """clip-vit-large-patch14's: the unconditional token of the guiders and the denoiser."""
    clip_vision: CLIPVisionModelWithProjection
    dino: nn.Module
    """Pixels [K 3 R R] -> (cls [K C], patches [K C g g])."""
    reference: UNet2DConditionModel
    denoiser: UNet2DConditionModel
    sketch_guider: ControlNetModel
    multi_guider: ControlNetModel
    """Both guiders as `with_dino_adapter` makes them."""


class ReleaseInputs(NamedTuple):
    """One case as pictures (release.md §3; `oracles.pixels` makes it from files)."""

    sketch: Tensor
    """[1 3 H W] in [-1, 1]."""
    canvas: Tensor
    """[1 3 S S] in [-1, 1]."""
    clip_pixels: Tensor
    """[1 3 P P], normalised by CLIP."""
    reference_pixels: Tensor
    """[K 3 R R], ImageNet-normalised."""
    id_map: Tensor
    """[H W] int64: 0 background, 1..K instances."""


class ReleaseNoise(NamedTuple):
    """Every random draw of one sample."""

    latents: Tensor
    """[1 4 H/8 W/8] standard normal: where sampling starts."""
    canvas: Tensor
    """[1 4 S/8 S/8] standard normal: picks the canvas latent from its posterior."""
    order: Tensor | None = None
    """Permutation of the source positions of colour matching (row-major); unused without it."""


class Conditions(NamedTuple):
    """What the denoising loop reads; random tensors will do for a benchmark."""

    canvas_latents: Tensor
    """[1 4 S/8 S/8], scaled."""
    reference_context: Tensor
    """[2 1 C] for the reference UNet."""
    context: Tensor
    """[2 1 C] for the guiders and the denoiser."""
    sketch: Tensor
    """[1 3 H W] in [-1, 1]."""
    guidance: Tensor
    """[1 C H W], the guidance map."""


class Evaluation(NamedTuple):
    """One denoising evaluation."""

    eps: Tensor
    """[2 4 h w]: unconditional and conditional noise."""
    nearest: Tensor | None
    """[P] nearest target position (row-major) of each drawn source position; None without
    matching."""


class ReleaseSample(NamedTuple):
    """A finished sample with what led to it."""

    pixels: Tensor
    """[1 3 H W] clipped to [-1, 1]."""
    latents: Tensor
    """[1 4 h w] after the last step, scaled."""
    eps_pairs: Tensor
    """[steps 2 4 h w] before guidance."""
    eps: Tensor
    """[steps 1 4 h w] after guidance."""
    nearest: list[Tensor] | None
    """Per step, as in `Evaluation`."""


def with_dino_adapter(guider: ControlNetModel) -> ControlNetModel:
    """Adds the release's extra submodule, key `dino_adapter.0.*` (release.md §1)."""
    width = guider.config.conditioning_channels
    guider.dino_adapter = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    return guider


@torch.inference_mode()
def sample(
    models: ReleaseModels,
    inputs: ReleaseInputs,
    noise: ReleaseNoise,
    *,
    steps: int = 20,
    scale: float = 3.5,
    matching: str = "release",
    bank_dtype: torch.dtype = torch.float16,
    hoisted: bool = False,
    nearest: list[Tensor] | None = None,
) -> ReleaseSample:
    """The whole call, from pictures to a picture.

    Args:
        scale: guidance; 1 gives the conditional half's noise, 0 the unconditional one's. Both
            halves are always evaluated.
        matching: `off` or `release`; the latter needs `noise.order`.
        nearest: one tensor per step to be used instead of searching.
    """
    conditions = encode(models, inputs, noise.canvas)
    order = {"off": None, "release": noise.order}[matching]
    if matching == "release" and order is None:
        raise ValueError("matching 'release' needs noise.order, a permutation; got None")
    denoise = GuidedDenoiser(models, conditions, order, bank_dtype=bank_dtype, hoisted=hoisted)
    scheduler = DDIMScheduler(**SD15_SCHEDULER)
    scheduler.set_timesteps(steps)
    latents, evaluations, guided = noise.latents, [], []
    for index, t in enumerate(scheduler.timesteps):
        found = denoise(latents, t, nearest[index] if nearest else None)
        uncond, cond = found.eps.chunk(2)
        eps = uncond + scale * (cond - uncond)
        latents = scheduler.step(eps, t, latents, eta=0.0).prev_sample
        evaluations.append(found)
        guided.append(eps)
    pixels = models.vae.decode(latents / LATENT_SCALE).sample.clamp(-1, 1)
    return ReleaseSample(
        pixels,
        latents,
        torch.stack([found.eps for found in evaluations]),
        torch.stack(guided),
        [found.nearest for found in evaluations] if matching == "release" else None,
    )


@torch.inference_mode()
def encode(models: ReleaseModels, inputs: ReleaseInputs, canvas_noise: Tensor) -> Conditions:
    """Runs the frozen networks (release.md §2.1, 2.3, 4)."""
    posterior = models.vae.encode(inputs.canvas).latent_dist
    embedding = models.clip_vision(inputs.clip_pixels).image_embeds[:, None]  # [1 1 C]
    _, patches = torch.func.functional_call(
        models.dino, rounded_weights(models.dino), inputs.reference_pixels
    )
    tokens = models.multi_guider.dino_adapter(patches.flatten(2).transpose(1, 2))  # [K g*g C]
    return Conditions(
        (posterior.mean + posterior.std * canvas_noise) * LATENT_SCALE,
        torch.cat([empty_prompt(models.text_encoder), embedding]),
        torch.cat([empty_prompt(models.clip_text), embedding]),
        inputs.sketch,
        guidance_map(tokens, inputs.id_map),
    )


def rounded_weights(module: nn.Module) -> dict[str, Tensor]:
    """The module's weights rounded to float16 and kept in float32 (release.md §4)."""
    return {name: tensor.half().float() for name, tensor in module.state_dict().items()}


def empty_prompt(text_model: CLIPTextModel) -> Tensor:
    """[1 1 C]: first token of the last hidden state of the empty prompt without padding.

    CLIP's vocabulary ends with BOS, EOS; the ids in old config files (0 and 2) were never right.
    """
    vocabulary = text_model.config.vocab_size
    tokens = torch.tensor([[vocabulary - 2, vocabulary - 1]])
    return text_model(tokens).last_hidden_state[:, :1]


class GuidedDenoiser:
    """One denoising evaluation of the guidance pair (release.md §2).

    A call is what a benchmark times; `hoisted` moves the constant part of it to the constructor.
    Hooks and processors are in place during a call only, so the models stay as they were.
    """

    @torch.inference_mode()
    def __init__(
        self,
        models: ReleaseModels,
        conditions: Conditions,
        order: Tensor | None,
        *,
        bank_dtype: torch.dtype = torch.float16,
        hoisted: bool = False,
    ):
        """`order`: the permutation of colour matching, None to leave it out."""
        self.models, self.conditions, self.hoisted = models, conditions, hoisted
        self.order = None if order is None else order[:MATCHED_POINTS]
        self.bank_dtype = bank_dtype
        self.hints = (conditions.sketch, conditions.guidance)
        self.guiders = (models.sketch_guider, models.multi_guider)
        if hoisted:
            self.match, self.processors = self._read_reference()
            self.hints = tuple(
                guider.controlnet_cond_embedding(hint)
                for guider, hint in zip(self.guiders, self.hints, strict=True)
            )

    @torch.inference_mode()
    def __call__(self, latents: Tensor, t: Tensor, nearest: Tensor | None = None) -> Evaluation:
        """Noise of both halves for latents [1 4 h w] at timestep `t`.

        Args:
            nearest: [P] positions to be used by colour matching instead of searching.
        """
        match, processors = (
            (self.match, self.processors) if self.hoisted else self._read_reference()
        )
        pair, context = latents.expand(2, -1, -1, -1), self.conditions.context
        down, middle = self._residuals(pair, t, context)
        matcher = None if self.order is None else ColorMatcher(match, self.order, nearest)
        with contextlib.ExitStack() as stack:
            stack.enter_context(processing_with(self.models.denoiser, processors))
            if matcher:
                block = self.models.denoiser.up_blocks[MATCHED_BLOCK]
                stack.enter_context(hooked({block: lambda *hook: matcher(hook[-1])}))
            eps = self.models.denoiser(
                pair,
                t,
                context,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        return Evaluation(eps, matcher.nearest if matcher else None)

    def _read_reference(self) -> tuple[Tensor, dict[str, BankAttention]]:
        """Matching source [2 C h w] and, per transformer block, the processor with its bank."""
        conditions = self.conditions
        features = reference_features(
            self.models.reference, conditions.canvas_latents, conditions.reference_context
        )
        blocks = transformer_blocks(self.models.denoiser)
        processors = {}
        for name, hidden in features.bank.items():
            bank = hidden[1:].to(self.bank_dtype).to(hidden.dtype)  # the conditional row
            processors[name] = BankAttention(bank)
            if self.hoisted:
                processors[name].project(blocks[name].attn1)
        return features.match, processors

    def _residuals(self, pair: Tensor, t: Tensor, context: Tensor) -> tuple[list[Tensor], Tensor]:
        """Both guiders' residuals, summed with weight 1."""
        outputs = []
        for guider, hint in zip(self.guiders, self.hints, strict=True):
            with _embedded_hint(guider) if self.hoisted else contextlib.nullcontext():
                outputs.append(guider(pair, t, context, hint.expand(2, -1, -1, -1)))
        sketch, multi = outputs
        down = [
            a + b
            for a, b in zip(
                sketch.down_block_res_samples, multi.down_block_res_samples, strict=True
            )
        ]
        return down, sketch.mid_block_res_sample + multi.mid_block_res_sample


@contextlib.contextmanager
def _embedded_hint(guider: ControlNetModel) -> Iterator[None]:
    """The guider takes a hint that is already embedded, for the time of a block."""
    embedding = guider.controlnet_cond_embedding
    guider.controlnet_cond_embedding = nn.Identity()
    try:
        yield
    finally:
        guider.controlnet_cond_embedding = embedding
