"""The hub's DINOv2 in plain PyTorch, written from its facts: names, order, interpolation."""

import torch
from torch import nn
from torch.nn import functional

from magiccolor_jax.encoders.dinov2_config import DINOv2Config


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        return self.proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape))


class LayerScale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(functional.silu(gate) * value)


class Block(nn.Module):
    def __init__(self, cfg: DINOv2Config):
        super().__init__()
        width, full = cfg.hidden_size, cfg.hidden_size * cfg.mlp_ratio
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, cfg.num_attention_heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        if cfg.use_swiglu_ffn:
            self.mlp = SwiGLU(width, (int(full * 2 / 3) + 7) // 8 * 8)
        else:
            self.mlp = MLP(width, full)
        self.ls2 = LayerScale(width)

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2Hub(nn.Module):
    """Pixels [B 3 H W] -> (cls [B C], patches [B C h w])."""

    def __init__(self, cfg: DINOv2Config):
        super().__init__()
        width, patch, registers = cfg.hidden_size, cfg.patch_size, cfg.num_register_tokens
        self.patch, self.registers, self.grid = patch, registers, cfg.image_size // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(cfg.num_hidden_layers)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows: int, columns: int):
        """[1 C rows columns]; the keyword arguments are those of hub/backbones.py."""
        table = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        if rows == columns == self.grid:
            return table
        if self.registers:
            return functional.interpolate(
                table, size=(rows, columns), mode="bicubic", antialias=True
            )
        factors = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        return functional.interpolate(table, scale_factor=factors, mode="bicubic")

    def forward(self, pixels):
        patches = self.patch_embed["proj"](pixels)  # [B C h w]
        batch, width, rows, columns = patches.shape
        tokens = [(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)]
        if self.registers:
            tokens.append(self.register_tokens.expand(batch, -1, -1))
        tokens.append((patches + self.positions(rows, columns)).flatten(2).transpose(1, 2))
        x = torch.cat(tokens, dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0], x[:, 1 + self.registers :].transpose(1, 2).unflatten(2, (rows, columns))
