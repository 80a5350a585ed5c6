"""The whole training objective in PyTorch, for autograd to differentiate.

Written from the paper (arXiv:2503.16948, §3), the papers of the single losses and release.md §2-6;
it shares no code with the package. NCHW, any float dtype. Cases are looped over wherever the
package masks, pads or gathers. Recipe `paper` as training uses it: rows are cases, some of which
see what the unconditional half of guidance sees. All random draws come from outside.
"""

import contextlib
import math
from typing import NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from oracles.release import LATENT_SCALE, SD15_SCHEDULER, ReleaseModels, empty_prompt
from oracles.release_parts import guidance_map, hooked, processing_with, transformer_blocks
from oracles.vgg import DEVIATION, MEAN, activations
from torch import Tensor, nn
from torch.nn import functional

from magiccolor_jax.losses.objective import LossConfig

CELL = 16
"""Pixels of a page that make one DINOv2 patch of it, and the step of the crops."""

LATENT = 8
"""Pixels per latent along one axis."""

PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class Pictures(NamedTuple):
    """B cases and their ground truth."""

    sketch: Tensor
    """[B 3 H W] in [-1, 1]."""
    canvas: Tensor
    """[B 3 S S] in [-1, 1]."""
    clip_pixels: Tensor
    """[B 3 P P], normalised by CLIP."""
    references: Tensor
    """[B K 3 R R], ImageNet-normalised."""
    id_map: Tensor
    """[B H W] int64: 0 background, 1..K instances."""
    roi: Tensor
    """[B K 4]: top, left, bottom, right of what fills the box, in token units."""
    counts: Tensor
    """[B K g g] bool: which patches of a reference belong to its instance."""
    target: Tensor
    """[B 3 H W] in [-1, 1]."""


class Drawn(NamedTuple):
    """Every random draw of a step."""

    timesteps: Tensor
    """[B] int64."""
    noise: Tensor
    """[B 4 h w] standard normal: the forward process."""
    posterior: Tensor
    """[B 4 h w] standard normal: picks the clean latent."""
    dropped: list[bool]
    """Cases without bank, context and instances."""
    tokens: Tensor
    """[B K g g] bool: tokens that become their instance's global embedding."""
    looks: bool
    """Whether this step looks at pictures."""
    corners: list[tuple[int, int]]
    """Top and left of each case's crop in pixels."""


class Terms(NamedTuple):
    """What is minimised, and how the parts are weighed."""

    prediction: str
    """`epsilon` or `v_prediction`."""
    progress: float
    """Share of the training that is done."""
    gamma: float | None
    """Of min-SNR."""
    perceptual: float
    color: float
    share: float
    """Of the steps that look at pictures."""
    below: float
    """Share of the schedule under which a case's picture counts."""
    crop: int
    """Side in pixels."""
    edge: bool = True

    @classmethod
    def of(cls, losses: LossConfig, prediction: str, progress: float) -> "Terms":
        """Our settings as the oracle takes them."""
        return cls(
            prediction=prediction,
            progress=progress,
            gamma=losses.min_snr_gamma,
            perceptual=losses.perceptual,
            color=losses.color,
            share=losses.picture_share,
            below=losses.picture_below,
            crop=losses.picture_crop,
            edge=losses.edge,
        )


def objective(
    models: ReleaseModels, vgg: nn.ModuleDict, pictures: Pictures, drawn: Drawn, terms: Terms
) -> dict[str, Tensor]:
    """`loss` and its parts `denoise`, `perceptual` and `color`, each a mean over the cases."""
    with torch.no_grad():
        posterior = models.vae.encode(pictures.target).latent_dist
        clean = (posterior.mean + posterior.std * drawn.posterior) * LATENT_SCALE
        features = dino_features(models.dino, pictures)
    abar = alphas_cumprod().to(clean.dtype)[drawn.timesteps].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * drawn.noise
    output = predict(models, pictures, drawn, features, noisy)
    if terms.prediction == "epsilon":
        target = drawn.noise
        guess = (noisy - (1 - abar).sqrt() * output) / abar.sqrt()
    else:
        target = abar.sqrt() * drawn.noise - (1 - abar).sqrt() * clean
        guess = abar.sqrt() * noisy - (1 - abar).sqrt() * output
    squares = (output - target) ** 2
    if terms.edge:
        squares = squares * edge_weight(pictures.target, terms.progress)
    each = squares.mean(dim=(1, 2, 3))
    if terms.gamma is not None:
        snr = (abar / (1 - abar)).flatten()
        over = snr if terms.prediction == "epsilon" else snr + 1
        each = each * snr.clamp(max=terms.gamma) / over
    found = {"denoise": each.mean()}
    found |= picture_terms(models, vgg, pictures, drawn, terms, features, guess)
    loss = sum(
        (getattr(terms, name, 1.0) * value for name, value in found.items()), clean.sum() * 0
    )
    return found | {"loss": loss}


def alphas_cumprod() -> Tensor:
    """[1000] float64: betas are linear in their square roots (release.md §2.6)."""
    start, end = (SD15_SCHEDULER[name] ** 0.5 for name in ("beta_start", "beta_end"))
    betas = torch.linspace(start, end, SD15_SCHEDULER["num_train_timesteps"], dtype=torch.float64)
    return torch.cumprod(1 - betas**2, 0)


class Features(NamedTuple):
    """DINOv2's of a batch."""

    cls: Tensor
    """[B K C] of the references."""
    patches: Tensor
    """[B K C g g] of the references."""
    page: Tensor
    """[B C H/16 W/16] of the ground truth, one patch per cell."""


def dino_features(dino: nn.Module, pictures: Pictures) -> Features:
    """Features of references and ground truth."""
    cls, patches = dino(pictures.references.flatten(0, 1))
    count = pictures.references.shape[:2]
    height, width = pictures.target.shape[2:]
    size = (height // CELL * dino.patch, width // CELL * dino.patch)
    resized = functional.interpolate(
        pictures.target, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    mean, deviation = (resized.new_tensor(x).view(3, 1, 1) for x in (MEAN, DEVIATION))
    _, page = dino(((resized + 1) / 2 - mean) / deviation)
    return Features(cls.unflatten(0, count), patches.unflatten(0, count), page)


def predict(
    models: ReleaseModels, pictures: Pictures, drawn: Drawn, features: Features, noisy: Tensor
) -> Tensor:
    """The denoiser's output for noisy latents [B 4 h w] under all conditions."""
    absent = torch.tensor(drawn.dropped).view(-1, 1, 1)
    with torch.no_grad():
        embedding = models.clip_vision(pictures.clip_pixels).image_embeds[:, None]  # [B 1 C]
        null = empty_prompt(models.clip_text), empty_prompt(models.text_encoder)
        canvas = models.vae.encode(pictures.canvas).latent_dist.mean * LATENT_SCALE
    context, of_reference = (torch.where(absent, each, embedding) for each in null)
    bank: dict[str, Tensor] = {}

    def store(name: str):
        return lambda *hook: bank.__setitem__(name, hook[-1])

    blocks = transformer_blocks(models.reference)
    with hooked({block.norm1: store(name) for name, block in blocks.items()}):
        models.reference(canvas, 0, of_reference)
    down, middle = residuals(models, pictures, drawn, features, noisy, context)
    attentions = {name: BankAttention(each, drawn.dropped) for name, each in bank.items()}
    with processing_with(models.denoiser, attentions):
        return models.denoiser(
            noisy,
            drawn.timesteps,
            context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample


def residuals(
    models: ReleaseModels,
    pictures: Pictures,
    drawn: Drawn,
    features: Features,
    noisy: Tensor,
    context: Tensor,
) -> tuple[list[Tensor], Tensor]:
    """Both guiders' residuals, summed; the instance guider's without the dropped cases."""
    sketch = models.sketch_guider(noisy, drawn.timesteps, context, pictures.sketch)
    hint = instance_hint(models.multi_guider, pictures, drawn, features)
    instance = models.multi_guider(noisy, drawn.timesteps, context, hint)
    seen = torch.tensor([not each for each in drawn.dropped]).to(noisy.dtype).view(-1, 1, 1, 1)
    pairs = zip(sketch.down_block_res_samples, instance.down_block_res_samples, strict=True)
    down = [a + seen * b for a, b in pairs]
    return down, sketch.mid_block_res_sample + seen * instance.mid_block_res_sample


def instance_hint(
    guider: ControlNetModel, pictures: Pictures, drawn: Drawn, features: Features
) -> Tensor:
    """The guidance maps [B C H W] of adapted tokens, some of which are the global embedding."""
    maps = []
    for case, dropped in enumerate(drawn.tokens):
        whole = features.cls[case][:, :, None, None].expand_as(features.patches[case])
        tokens = torch.where(dropped[:, None], whole, features.patches[case])  # [K C g g]
        adapted = guider.dino_adapter(tokens.flatten(2).transpose(1, 2))
        options = {"grid_order": "xy", "box_end": "inclusive", "roi": pictures.roi[case]}
        maps.append(guidance_map(adapted, pictures.id_map[case], **options))
    return torch.cat(maps)


class BankAttention:
    """Self-attention whose rows also see their own row of the bank, unless it is dropped."""

    def __init__(self, bank: Tensor, dropped: list[bool]):
        """`bank`: [B S C]; gradients flow into it."""
        self.bank, self.dropped = bank, dropped

    def __call__(self, attn: nn.Module, hidden_states: Tensor, *_, **__) -> Tensor:
        rows = []
        for own, bank, dropped in zip(hidden_states, self.bank, self.dropped, strict=True):
            seen = own if dropped else torch.cat([own, bank])
            query, key, value = (
                to(x).unflatten(-1, (attn.heads, -1)).transpose(0, 1)  # [N L D]
                for to, x in ((attn.to_q, own), (attn.to_k, seen), (attn.to_v, seen))
            )
            heads = functional.scaled_dot_product_attention(query, key, value)
            rows.append(heads.transpose(0, 1).flatten(1))
        return attn.to_out[0](torch.stack(rows))


def edge_weight(target: Tensor, progress: float) -> Tensor:
    """[B 1 h w]: 1, and up to 2 at the edges of the ground truth when the training ends."""
    grey = (target * target.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    across = target.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across, across.T])[:, None]
    gradient = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), mode="reflect"), kernels)
    strength = (gradient.norm(dim=1, keepdim=True) / 8).clamp(max=1)
    ramp = (1 - math.cos(math.pi * progress)) / 2
    return 1 + ramp * functional.max_pool2d(strength, LATENT)


def picture_terms(
    models: ReleaseModels,
    vgg: nn.ModuleDict,
    pictures: Pictures,
    drawn: Drawn,
    terms: Terms,
    features: Features,
    guess: Tensor,
) -> dict[str, Tensor]:
    """Means over the cases of the terms that look at x0 hat; a case with much noise counts 0."""
    total = {"perceptual": guess.new_zeros(()), "color": guess.new_zeros(())}
    limit = terms.below * SD15_SCHEDULER["num_train_timesteps"]
    for case, (top, left) in enumerate(drawn.corners):
        if not drawn.looks or drawn.timesteps[case] >= limit:
            continue
        height, width = (min(terms.crop, side) for side in pictures.target.shape[2:])
        pixels = slice(top, top + height), slice(left, left + width)
        latents = guess[
            case,
            :,
            top // LATENT : (top + height) // LATENT,
            left // LATENT : (left + width) // LATENT,
        ]
        decoded = models.vae.decode(latents[None] / LATENT_SCALE).sample
        shown = pictures.target[case : case + 1, :, *pixels]
        total["perceptual"] = total["perceptual"] + perceptual(vgg, decoded, shown)
        if terms.color:
            colors = color_distance(decoded[0], pictures, features, case, top, left)
            total["color"] = total["color"] + colors
    return {name: value / len(drawn.corners) / terms.share for name, value in total.items()}


def perceptual(vgg: nn.ModuleDict, guess: Tensor, target: Tensor) -> Tensor:
    """Mean over layers of the squared distance of activations relative to the target's square."""
    ours, theirs = (activations(vgg, (pixels + 1) / 2) for pixels in (guess, target))
    shares = [
        ((ours[name] - theirs[name]) ** 2).mean() / ((theirs[name] ** 2).mean() + 1e-6)
        for name in PERCEPTUAL_LAYERS
    ]
    return torch.stack(shares).mean()


def color_distance(
    decoded: Tensor, pictures: Pictures, features: Features, case: int, top: int, left: int
) -> Tensor:
    """Mean distance of a crop [3 h w] from the colours of the matched reference patches."""
    distances = []
    for row in range(0, decoded.shape[1], CELL):
        for column in range(0, decoded.shape[2], CELL):
            place = (top + row) // CELL, (left + column) // CELL
            color = matched_color(pictures, features, case, place)
            if color is not None:
                cell = decoded[:, row : row + CELL, column : column + CELL].mean(dim=(1, 2))
                distances.append((cell - color).abs().mean())
    return torch.stack(distances).mean() if distances else decoded.new_zeros(())


def matched_color(
    pictures: Pictures, features: Features, case: int, place: tuple[int, int]
) -> Tensor | None:
    """Colour [3] of the patch of its own reference that is most like a cell of the page.

    None where the cell is no instance's alone, or where nothing of the reference counts.
    """
    row, column = place
    cell = pictures.id_map[case, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
    owners = cell.unique().tolist()
    if len(owners) > 1 or owners == [0]:
        return None
    index = owners[0] - 1
    where = pictures.counts[case, index].nonzero().tolist()
    if not where:
        return None
    patches, query = features.patches[case, index], features.page[case, :, row, column]
    likeness = [torch.cosine_similarity(query, patches[:, y, x], dim=0) for y, x in where]
    y, x = where[int(torch.stack(likeness).argmax())]
    reference = pictures.references[case, index]
    side = reference.shape[-1] // patches.shape[-1]
    patch = reference[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
    mean, deviation = (patch.new_tensor(each).view(3, 1, 1) for each in (MEAN, DEVIATION))
    return 2 * (patch * deviation + mean).mean(dim=(1, 2)) - 1


def trained(models: ReleaseModels) -> dict[str, UNet2DConditionModel | ControlNetModel]:
    """Network -> the module that stage 2 trains, under the package's names."""
    return {
        "denoiser": models.denoiser,
        "reference": models.reference,
        "sketch_guider": models.sketch_guider,
        "instance_guider": models.multi_guider,
    }


@contextlib.contextmanager
def differentiating(models: ReleaseModels):
    """The trained networks collect gradients for the time of a block, from nothing."""
    networks = trained(models).values()
    for network in networks:
        network.requires_grad_(True).zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(False).zero_grad(set_to_none=True)


def gradients(
    models: ReleaseModels, vgg: nn.ModuleDict, pictures: Pictures, drawn: Drawn, terms: Terms
) -> tuple[dict[str, float], dict[str, dict[str, Tensor]]]:
    """The terms, and the loss's gradient per network and PyTorch key; what is unused has none."""
    with differentiating(models):
        found = objective(models, vgg, pictures, drawn, terms)
        found["loss"].backward()
        slopes = {
            name: {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
            for name, network in trained(models).items()
        }
    return {name: value.item() for name, value in found.items()}, slopes
