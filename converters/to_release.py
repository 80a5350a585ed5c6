"""`--to release`: the files that the release's own code loads (release.md §1).

What was converted goes back into the files that it came from. What a training added, or what never
was a PyTorch file, gets the release's name for it. Such new files suit the release's loader, which
passes over what it does not know, and a strict one of diffusers alike: the reference UNet gets the
head that it does not use, and the sketch guider none of the release's unused adapter. What a model
is and the release's files cannot say goes into a file of ours beside them, `release.TOLD`.
"""

import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from converters import maps
from converters.configs import read_sizes
from converters.containers import FileRecord
from converters.folder import Folder
from converters.manifest import SourceRecord
from converters.plan import INDEX, read_json
from converters.release import ENTRIES, SCHEDULER_CONFIG, SD15, TOLD, UNET_CONFIG, Entry
from converters.to_diffusers import DIFFUSERS_KINDS
from converters.to_torch import (
    Export,
    Origins,
    OutputFile,
    extra_origins,
    kind_of,
    network_origins,
    new_file,
    unused,
)
from converters.write_configs import clip_to_hf, schedule_to_hf, to_hf
from magiccolor_jax.checkpoint import ModelConfig, SamplingDefaults, config_from_json
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.tensorfile import TensorSpec

WHOLE = ("denoiser", "sketch_guider")
"""Networks of a model that colours; by these a model of our own is told from a single network."""

VGG19 = "vgg19-features.pth"
"""A file of torchvision's names without its classifier, which we do not keep."""

TEXTS = f"{SD15}/tokenizer"


def plan_return(folder: Folder) -> Export:
    """What came in: the same files, containers, keys, order, types and bytes; and, for a whole
    model, files of the release for the networks that came from elsewhere.

    Raises:
        ValueError: the folder does not agree with its manifest, or the release has no place for
            what it holds.
    """
    networks = folder.model.networks
    whole = all(stem in networks for stem in WHOLE)
    if folder.manifest is None and not whole:
        raise ValueError(
            f"{folder.path}: was not converted from PyTorch (it has no manifest.json), so there is "
            "nothing to go back to: use `--to diffusers`"
        )
    kept = [s for s in folder.sources if any(stem in networks for stem in s.networks)]
    dropped = [s for s in folder.sources if s not in kept]
    came = Export(
        files=tuple(
            _returned(folder, source, record) for source in kept for record in source.files
        ),
        copies=_texts_of(folder, kept, dropped),
        notes=tuple(
            f"{source.path}: left out, this model has no {' and no '.join(source.networks)}"
            for source in dropped
        ),
    )
    return _complete(folder, came, {stem for s in kept for stem in s.networks}) if whole else came


def _returned(folder: Folder, source: SourceRecord, record: FileRecord) -> OutputFile:
    origins: Origins = dict(extra_origins(folder.root, source))
    for stem in source.networks:
        if stem in folder.tensors:
            kind = kind_of(folder.model.networks[stem])
            style = maps.style_named(kind, source.style)
            origins |= network_origins(folder.tensors[stem], kind, style)
    if lost := [key for key in record.tensors if key not in origins]:
        raise ValueError(
            f"{folder.path}: {record.path} had {len(lost)} tensors that are not here: {lost[:8]}"
        )
    # Types are what the folder has now: a training may have changed them since.
    tensors = {
        key: TensorSpec(origins[key].spec.dtype, spec.shape) for key, spec in record.tensors.items()
    }
    return OutputFile(record=dataclasses.replace(record, tensors=tensors), origins=origins)


def _texts_of(
    folder: Folder, kept: list[SourceRecord], dropped: list[SourceRecord]
) -> dict[str, Path]:
    """The small files, but those that would describe weights which are not written."""
    described = {Path(source.path).parent for source in dropped}
    described -= {Path(source.path).parent for source in kept}

    def tells_of_nothing(name: str) -> bool:
        path = Path(name)
        alone = path.parent in described and name != UNET_CONFIG
        return alone and (path.name == "config.json" or bool(INDEX.search(name)))

    return {name: p for name, p in folder.verbatim.items() if not tells_of_nothing(name)}


def _complete(folder: Folder, came: Export, covered: Collection[str]) -> Export:
    """Adds the release's files for every network that came from none, and says what is missing.

    Raises:
        ValueError: as `_put_config`.
    """
    model = folder.model
    copies = _still_true(model, came.copies)
    files, texts, notes = [], {SCHEDULER_CONFIG: schedule_to_hf(model.schedule)}, []
    for entry in ENTRIES:
        first = entry.roles[0].stem
        if first in model.networks and first not in covered:
            files.append(new_file(_path(entry), _made(folder, entry)))
            if entry.config != TOLD:
                _put_config(folder, entry, texts)
        elif first not in model.networks and entry.needed:
            notes.append(f"{entry.where}: this model has no {first}; the release's code needs it")
    if "vgg19" in model.networks and "vgg19" not in covered:
        origins = network_origins(folder.tensors["vgg19"], "vgg19", maps.TORCHVISION)
        files.append(new_file(VGG19, dict(origins)))
    if not any(name.startswith(TEXTS) for name in copies):
        notes.append(f"{TEXTS}: no part of this model; the release's code needs the download's")
    if unsaid := _unsaid(model):
        texts[TOLD] = model.to_json()
        notes.append(f"{TOLD}: only our converter reads it, for {', '.join(unsaid)}")
    written = {
        name: json.dumps(content, indent=2) + "\n"
        for name, content in texts.items()
        if name not in copies
    }
    return Export(
        files=(*came.files, *files), copies=copies, texts=written, notes=(*came.notes, *notes)
    )


def _still_true(model: ModelConfig, copies: dict[str, Path]) -> dict[str, Path]:
    """The small files, but those of the whole model that it has grown out of."""
    says: dict[str, Callable[[Path], bool]] = {
        SCHEDULER_CONFIG: lambda path: Schedule.from_hf(read_json(path)) == model.schedule,
        TOLD: lambda path: config_from_json(read_json(path), path) == model,
    }
    return {name: path for name, path in copies.items() if name not in says or says[name](path)}


def _path(entry: Entry) -> str:
    """The file that an entry's weights are written to where there was none."""
    if entry.config != f"{entry.where}/config.json":
        return f"{entry.where}.pth"
    of_diffusers = entry.roles[0].kind in DIFFUSERS_KINDS
    return f"{entry.where}/{'diffusion_pytorch_model' if of_diffusers else 'model'}.safetensors"


def _made(folder: Folder, entry: Entry) -> Origins:
    """Every tensor of an entry's file, by the release's key."""
    origins: Origins = {}
    for role in entry.roles:
        if role.stem in folder.tensors:
            origins |= unused(folder.model.networks[role.stem])
            style = maps.STYLES[role.kind][0]
            origins |= network_origins(folder.tensors[role.stem], role.kind, style)
    return origins


def _put_config(folder: Folder, entry: Entry, texts: dict[str, dict[str, Any]]) -> None:
    """Adds an entry's config.json, which the two UNets share.

    Raises:
        ValueError: they have not the same sizes.
    """
    content = _config(folder, entry)
    others = texts.setdefault(entry.config, content)
    if content != others:
        stem = entry.roles[0].stem
        raise ValueError(
            f"{folder.path}: the release has one {entry.config} for both UNets: expected {stem} to "
            f"be {others}, got {content}; where only `out_channels` differs, which means nothing "
            f"without a head, make it the same in config.json's networks.{stem}"
        )


def _config(folder: Folder, entry: Entry) -> dict[str, Any]:
    """The content of an entry's config.json; DINOv2's too, whose sizes need not be official."""
    networks = folder.model.networks
    config = networks[entry.roles[0].stem]
    if entry.roles[0].kind == "clip_vision":
        return clip_to_hf(config, networks.get("clip_text"))
    return to_hf(config, page=folder.model.sizes.page)


def _unsaid(model: ModelConfig) -> list[str]:
    """What config.json says, and the release's files cannot."""
    networks = model.networks
    sizes = read_sizes(model.sizes.page, networks.get("clip_vision"), networks.get("dinov2"))
    needed = {entry.roles[0].stem for entry in ENTRIES if entry.needed}
    beyond = {
        f"recipe {_name(model.recipe)}": model.recipe != Recipe.release(),
        f"{model.sizes}": model.sizes != sizes,
        f"{model.sampling}": model.sampling != SamplingDefaults(),
        "the context's network": "context" in networks,
        "the networks that are not there": bool(needed - networks.keys()),
    }
    return [what for what, yes in beyond.items() if yes]


def _name(recipe: Recipe) -> str:
    written = recipe.to_json()
    return written if isinstance(written, str) else "of this model"
