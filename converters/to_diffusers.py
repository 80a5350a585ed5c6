"""`--to diffusers`: one folder per network that diffusers or transformers load."""

import json
import re
from pathlib import Path

from converters import maps
from converters.folder import Folder
from converters.to_torch import (
    Export,
    Origins,
    extra_origins,
    kind_of,
    network_origins,
    new_file,
    unused,
)
from converters.weightmap import KeyStyle
from converters.write_configs import to_hf

DIFFUSERS_KINDS = ("unet", "controlnet", "vae")

WITHOUT_CONFIG = (
    "context",
    "vgg19",
    "lpips",
    "inception",
    "anime2sketch",
    "sketch_keras",
    "informative_drawings",
)
"""Kinds of no library that loads by `from_pretrained`."""

EXTRAS = {
    "unet": r"conv_(norm_)?out\..*",
    "controlnet": r"dino_adapter\..*",
    "dinov2": r"(embeddings\.)?mask_token",
}
"""Kind -> tensors of its source that belong to it, although our network does not use them."""

TEXT_FOLDERS = ("scheduler", "tokenizer")
"""Folders of small files that `from_pretrained` loads."""


def library_style(kind: str) -> KeyStyle:
    """The names under which its library loads a network."""
    transformers = {"dinov2": maps.DINOV2_TRANSFORMERS, "sam": maps.SAM_TRANSFORMERS}
    return transformers[kind] if kind in transformers else maps.STYLES[kind][0]


def plan_library(folder: Folder) -> Export:
    """One folder per network that diffusers or transformers load by `from_pretrained`."""
    files, texts, notes = [], {}, []
    for stem, config in folder.model.networks.items():
        kind = kind_of(config)
        if kind == "unet" and not config.head:
            notes.append(f"{stem}: has no output norm; conv_norm_out is written as the identity")
        name = "diffusion_pytorch_model" if kind in DIFFUSERS_KINDS else "model"
        files.append(new_file(f"{stem}/{name}.safetensors", _origins(folder, stem, kind)))
        if kind in WITHOUT_CONFIG:
            notes.append(f"{stem}: no library loads it by `from_pretrained`")
        else:
            content = to_hf(config, page=folder.model.sizes.page)
            texts[f"{stem}/config.json"] = json.dumps(content, indent=2) + "\n"
    copies = {
        f"{Path(name).parent.name}/{Path(name).name}": path
        for name, path in folder.verbatim.items()
        if Path(name).parent.name in TEXT_FOLDERS
    }
    return Export(files=tuple(files), copies=copies, texts=texts, notes=tuple(notes))


def _origins(folder: Folder, stem: str, kind: str) -> Origins:
    """Every tensor of a network's file, by its library's key."""
    style = library_style(kind)
    beside: Origins = dict(unused(folder.model.networks[stem]))
    source = next((source for source in folder.sources if stem in source.networks), None)
    if source is not None and kind in EXTRAS:
        beside |= {
            key: origin
            for key, origin in extra_origins(folder.root, source).items()
            if re.fullmatch(EXTRAS[kind], key)
        }
    named = {style.file_keys(key)[0]: origin for key, origin in beside.items()}
    return named | network_origins(folder.tensors[stem], kind, style)
