"""Literal key names of the downloads, from the live names of the installed transformers.

transformers >= 5.6 flattened CLIPTextModel and renamed Dinov2's attention and SwiGLU; the files
that people have keep the old names (release.md §1).
"""

import re
from collections.abc import Mapping

import torch

StateDict = dict[str, torch.Tensor]

DINOV2_RENAMES = (
    (r"attention\.([qkv])_proj", lambda match: f"attention.attention.{QKV[match[1]]}"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.down_proj", "mlp.weights_out"),
)
QKV = {"q": "query", "k": "key", "v": "value"}

HUB_RENAMES = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"encoder\.layer\.", "blocks."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"mlp\.weights_in", "mlp.w12"),
    (r"mlp\.weights_out", "mlp.w3"),
    (r"^layernorm\.", "norm."),
)


def clip_text(state: Mapping[str, torch.Tensor]) -> StateDict:
    """CLIPTextModel -> `text_model.*`; names that are already literal stay."""
    return {re.sub(r"^(?!text_)", "text_model.", key): tensor for key, tensor in state.items()}


def dinov2(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Dinov2Model or Dinov2WithRegistersModel -> the names of facebook/dinov2-*'s files."""
    renamed = _rename(state, DINOV2_RENAMES)
    return _fuse(renamed, r"(.*\.mlp)\.gate_proj\.(\w+)", ("gate_proj", "up_proj"), "weights_in")


def dinov2_hub(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Dinov2Model or Dinov2WithRegistersModel -> the hub's names, q, k and v in one tensor."""
    fused = _fuse(
        dinov2(state),
        r"(.*)\.attention\.attention\.query\.(\w+)",
        tuple(f"attention.attention.{part}" for part in QKV.values()),
        "attn.qkv",
    )
    return _rename(fused, HUB_RENAMES)


def _rename(state: Mapping[str, torch.Tensor], renames) -> StateDict:
    def new_name(key):
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        return key

    return {new_name(key): tensor for key, tensor in state.items()}


def _fuse(state: StateDict, first: str, parts: tuple[str, ...], whole: str) -> StateDict:
    """Stacks the tensors `prefix.part.leaf` along their outputs, as `prefix.whole.leaf`."""
    fused = dict(state)
    for key in state:
        if match := re.fullmatch(first, key):
            prefix, leaf = match.groups()
            pieces = [fused.pop(f"{prefix}.{part}.{leaf}") for part in parts]
            fused[f"{prefix}.{whole}.{leaf}"] = torch.cat(pieces)
    return fused
