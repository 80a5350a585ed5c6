"""`--to diffusers`: one folder per network that diffusers or transformers load."""

import json
import re
from pathlib import Path

import numpy as np

from converters import maps
from converters.containers import FileRecord
from converters.manifest import VERBATIM, SourceRecord
from converters.to_torch import (
    Export,
    Filled,
    Origins,
    OutputFile,
    extra_origins,
    kind_of,
    network_origins,
    open_folder,
)
from converters.weightmap import KeyStyle
from converters.write_configs import to_hf
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.tensorfile import TensorSpec

DIFFUSERS_KINDS = ("unet", "controlnet", "vae")

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
    return maps.DINOV2_TRANSFORMERS if kind == "dinov2" else maps.STYLES[kind][0]


def plan_library(folder: Path) -> Export:
    """One folder per network that diffusers or transformers load by `from_pretrained`.

    Raises:
        FileNotFoundError: a file of the JAX folder is missing.
        ValueError: the folder is damaged.
    """
    model, manifest = open_folder(folder)
    files, texts, notes = [], {}, []
    for stem, config in model.networks.items():
        sources = manifest.sources if manifest else ()
        source = next((source for source in sources if stem in source.networks), None)
        kind = kind_of(config)
        if kind not in maps.BY_KIND:
            notes.append(f"{stem}: exists in JAX only, and is left out")
            continue
        origins = _origins(folder, stem, kind, source)
        if kind == "unet" and not config.head:
            origins = _head(config) | origins
            notes.append(f"{stem}: has no output norm; conv_norm_out is written as the identity")
        files.append(_file(stem, kind, origins))
        if kind == "vgg19":
            notes.append(f"{stem}: torchvision's names; no library loads it by `from_pretrained`")
        else:
            content = to_hf(config, page=model.sizes.page)
            texts[f"{stem}/config.json"] = json.dumps(content, indent=2) + "\n"
    verbatim = [Path(name) for name in (manifest.verbatim if manifest else ())]
    copies = {
        f"{path.parent.name}/{path.name}": folder / VERBATIM / path
        for path in verbatim
        if path.parent.name in TEXT_FOLDERS
    }
    return Export(files=tuple(files), copies=copies, texts=texts, notes=tuple(notes))


def _origins(folder: Path, stem: str, kind: str, source: SourceRecord | None) -> Origins:
    """Every tensor of a network's file, by its library's key."""
    style = library_style(kind)
    origins: Origins = dict(network_origins(folder, stem, kind, style))
    if source is not None and kind in EXTRAS:
        origins |= {
            style.file_keys(key)[0]: origin
            for key, origin in extra_origins(folder, source).items()
            if re.fullmatch(EXTRAS[kind], key)
        }
    return origins


def _head(config: UNetConfig) -> Origins:
    """What a UNet without an output head lacks, so that diffusers loads it without a complaint."""
    width, float32 = config.channels[0], np.dtype(np.float32)
    kernel = (config.out_channels, width, 3, 3)
    return {
        "conv_norm_out.weight": Filled(value=1.0, spec=TensorSpec(float32, (width,))),
        "conv_norm_out.bias": Filled(value=0.0, spec=TensorSpec(float32, (width,))),
        "conv_out.weight": Filled(value=0.0, spec=TensorSpec(float32, kernel)),
        "conv_out.bias": Filled(value=0.0, spec=TensorSpec(float32, kernel[:1])),
    }


def _file(stem: str, kind: str, origins: Origins) -> OutputFile:
    name = "diffusion_pytorch_model" if kind in DIFFUSERS_KINDS else "model"
    # The order of safetensors' own writer.
    keys = sorted(origins, key=lambda key: (-origins[key].spec.dtype.itemsize, key))
    record = FileRecord(
        path=f"{stem}/{name}.safetensors",
        container="safetensors",
        tensors={key: origins[key].spec for key in keys},
        metadata={"format": "pt"},
    )
    return OutputFile(record=record, origins=origins)
