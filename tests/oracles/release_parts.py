"""The parts of the release's sample that diffusers does not have (release.md §2, 4, 5).

Guidance map, bank of the reference UNet and the attention that reads it, colour matching. NCHW,
float32, one case; rows of a guidance pair are [unconditional, conditional].
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn import functional

MATCHED_BLOCK = 1
"""Colour matching acts on the output of this up-block."""

MATCHED_POINTS = 1000
"""How many source positions are drawn."""


class ReferenceFeatures(NamedTuple):
    """What the reference UNet leaves behind."""

    bank: dict[str, Tensor]
    """Name of a transformer block -> norm1(hidden) [2 S C]."""
    match: Tensor
    """[2 C h w] after up-block 1."""


def guidance_map(
    tokens: Tensor,
    id_map: Tensor,
    *,
    grid_order: str = "yx",
    box_end: str = "exclusive",
    roi: Tensor | None = None,
) -> Tensor:
    """The tokens of each instance stretched over the box of its pixels: [1 C H W] (release.md §4).

    Args:
        tokens: [K g*g C], adapted.
        id_map: [H W] int, 1..K.
        grid_order: `yx` pastes the grid transposed (the release), `xy` upright.
        box_end: `exclusive` leaves the box's last row and column empty (the release).
        roi: [K 4] top, left, bottom, right in token units, 0..g-1: what of the grid fills the box;
            None is all of it (the release). An axis of length 1 samples its start.
    """
    count, positions, channels = tokens.shape
    grid = round(positions**0.5)
    out = tokens.new_zeros(1, channels, *id_map.shape)
    for index in range(count):
        rows, columns = torch.nonzero(id_map == index + 1, as_tuple=True)
        if not len(rows):
            continue
        more = 0 if box_end == "exclusive" else 1
        top, bottom = int(rows.min()), int(rows.max()) + more
        left, right = int(columns.min()), int(columns.max()) + more
        if top == bottom or left == right:
            continue
        picture = tokens[index].T.reshape(1, channels, grid, grid)
        area = (0, 0, grid - 1, grid - 1) if roi is None else roi[index].tolist()
        patch = _stretch(picture, bottom - top, right - left, area, grid_order)
        inside = id_map[top:bottom, left:right] == index + 1
        box = out[:, :, top:bottom, left:right]
        box.copy_(torch.where(inside, patch, box))
    return out


def _stretch(picture: Tensor, height: int, width: int, area, grid_order: str) -> Tensor:
    """[1 C g g] -> [1 C height width], bilinear over `area` with its corners on the corners."""
    top, left, bottom, right = (2 * edge / (picture.shape[-1] - 1) - 1 for edge in area)
    if grid_order == "yx":
        # grid_sample reads (x, y); the release stacks (row, column).
        x = torch.linspace(left, right, height)[:, None].expand(height, width)
        y = torch.linspace(top, bottom, width)[None].expand(height, width)
    else:
        x = torch.linspace(left, right, width)[None].expand(height, width)
        y = torch.linspace(top, bottom, height)[:, None].expand(height, width)
    where = torch.stack([x, y], dim=-1)[None].to(picture.dtype)
    return functional.grid_sample(
        picture, where, mode="bilinear", padding_mode="reflection", align_corners=True
    )


@torch.inference_mode()
def reference_features(
    reference: UNet2DConditionModel, latents: Tensor, context: Tensor
) -> ReferenceFeatures:
    """Evaluates the reference UNet at t = 0 on clean latents [1 4 s s], context [2 1 C]."""
    bank, match = {}, []

    def store(name):
        return lambda *hook: bank.__setitem__(name, hook[-1])

    hooks = {block.norm1: store(name) for name, block in transformer_blocks(reference).items()}
    hooks[reference.up_blocks[MATCHED_BLOCK]] = lambda *hook: match.append(hook[-1])
    with hooked(hooks):
        reference(latents.expand(2, -1, -1, -1), 0, context)
    return ReferenceFeatures(bank, match[0])


def transformer_blocks(unet: UNet2DConditionModel) -> dict[str, BasicTransformerBlock]:
    """The 16 transformer blocks by name; two UNets of one architecture pair by it."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, BasicTransformerBlock)
    }


class BankAttention:
    """Self-attention of a guidance pair in which only the conditional row sees the bank."""

    def __init__(self, bank: Tensor):
        """`bank`: [1 S C]."""
        self.bank = bank
        self.projected: tuple[Tensor, Tensor] | None = None

    def project(self, attn: nn.Module) -> None:
        """Computes the bank's keys and values once."""
        self.projected = attn.to_k(self.bank), attn.to_v(self.bank)

    def __call__(self, attn: nn.Module, hidden_states: Tensor, *_, **__) -> Tensor:
        own, query = hidden_states, attn.to_q(hidden_states)
        if self.projected:
            key, value = attn.to_k(own), attn.to_v(own)
            cond_key = torch.cat([key[1:], self.projected[0]], dim=1)
            cond_value = torch.cat([value[1:], self.projected[1]], dim=1)
        else:
            key, value = attn.to_k(own[:1]), attn.to_v(own[:1])
            both = torch.cat([own[1:], self.bank], dim=1)
            cond_key, cond_value = attn.to_k(both), attn.to_v(both)
        rows = [
            _attend(query[:1], key[:1], value[:1], attn.heads),
            _attend(query[1:], cond_key, cond_value, attn.heads),
        ]
        return attn.to_out[0](torch.cat(rows))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """[1 L C], [1 S C] x 2 -> [1 L C]."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    out = functional.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).flatten(2)


class ColorMatcher:
    """The replacement of features after up-block 1, mode `release` (release.md §5)."""

    def __init__(self, source: Tensor, order: Tensor, nearest: Tensor | None):
        """Source [2 C h w], drawn positions [P], and their nearest targets if already known."""
        self.source, self.order, self.nearest = source.mean(0), order, nearest

    def __call__(self, target: Tensor) -> Tensor:
        """[2 C h w] -> the same; leaves the target positions found in `self.nearest`."""
        source, out = self.source, target.mean(0)
        _, height, width = out.shape
        if height != width or source.shape != out.shape:
            raise ValueError(
                "matching 'release' exchanges rows and columns: expected square maps of one shape, "
                f"got {tuple(source.shape)} and {tuple(out.shape)}; use matching='off'"
            )
        if self.nearest is None:
            drawn = functional.normalize(source, dim=0).flatten(1).T[self.order]
            targets = functional.normalize(out, dim=0).flatten(1).T
            self.nearest = torch.cdist(drawn, targets).argmin(dim=1)
        for p, q in zip(self.order.tolist(), self.nearest.tolist(), strict=True):
            (y, x), (new_y, new_x) = divmod(p, width), divmod(q, width)
            out[:, new_x, new_y] = source[:, x, y]
        return out.expand_as(target).clone()


@contextlib.contextmanager
def hooked(hooks: dict[nn.Module, object]) -> Iterator[None]:
    """Forward hooks for the time of a block; what a hook returns replaces the output."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def processing_with(
    unet: UNet2DConditionModel, processors: dict[str, BankAttention]
) -> Iterator[None]:
    """Processors of the attn1 layers for the time of a block."""
    layers = {name: block.attn1 for name, block in transformer_blocks(unet).items()}
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(processors[name])
        yield
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])
