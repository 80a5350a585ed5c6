"""`--to release`: the files that the release's own code loads (release.md §1).

What was converted goes back into the files that it came from. What a training added, or what never
was a PyTorch file, gets the release's name for it. Such new files suit the release's loader, which
passes over what it does not know, and a strict one of diffusers alike: the reference UNet gets the
head that it does not use, and the sketch guider none of the release's unused adapter. What a model
is and the release's files cannot say goes into a file of ours beside them, told.py.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from converters import maps
from converters.configs import from_hf, named, read_page
from converters.containers import FileRecord
from converters.folder import Folder
from converters.manifest import SourceRecord
from converters.plan import INDEX, read_json
from converters.release import (
    ENTRIES,
    SCHEDULER_CONFIG,
    SD15,
    UNET_CONFIG,
    Entry,
    Role,
    release_model,
)
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
from converters.told import TOLD, WHOLE
from converters.write_configs import clip_to_hf, schedule_to_hf, to_hf
from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.vgg import VGG19Config
from magiccolor_jax.tensorfile import TensorSpec

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
    if not whole:
        return came
    covered = {stem for source in kept for stem in source.networks}
    model, notes = _placed(folder.model, covered)
    whole_folder = dataclasses.replace(folder, model=model)
    return _complete(whole_folder, dataclasses.replace(came, notes=(*came.notes, *notes)), covered)


def _placed(model: ModelConfig, covered: Collection[str]) -> tuple[ModelConfig, list[str]]:
    """(the model as the release's files can hold it, what that leaves out)."""
    firsts = {role.stem: entry.roles[0].stem for entry in ENTRIES for role in entry.roles}
    networks, notes = dict(model.networks), []
    for stem in model.networks:
        known = stem == "vgg19" or firsts.get(stem) in model.networks
        if stem not in covered and not known:
            del networks[stem]
            notes.append(f"{stem}: left out, the release has no file for it")
    if (reference := networks.get("reference")) is not None and not reference.head:
        # Means nothing without a head, and both UNets have one config.json.
        outputs = networks["denoiser"].out_channels
        networks["reference"] = dataclasses.replace(reference, out_channels=outputs)
    return dataclasses.replace(model, networks=networks), notes


def _returned(folder: Folder, source: SourceRecord, record: FileRecord) -> OutputFile:
    origins: Origins = dict(extra_origins(folder.root, source))
    for stem in source.networks:
        if stem in folder.tensors:
            kind = kind_of(folder.model.networks[stem])
            style = maps.style_named(kind, source.style)
            origins |= network_origins(folder.tensors[stem], kind, style)
    if lost := [key for key in record.tensors if key not in origins]:
        raise ValueError(
            f"{folder.path}: {record.path} had {len(lost)} tensors that are not here: {lost[:8]}; "
            f"have all its networks ({', '.join(source.networks)}), or use `--to diffusers`"
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
        return name == TOLD or alone and (path.name == "config.json" or bool(INDEX.search(name)))

    return {name: p for name, p in folder.verbatim.items() if not tells_of_nothing(name)}


def _complete(folder: Folder, came: Export, covered: Collection[str]) -> Export:
    """Adds the release's files for every network that came from none, and says what is missing.

    Raises:
        ValueError: as `_configs`.
    """
    model = folder.model
    files, notes = [], []
    for entry in ENTRIES:
        first = entry.roles[0].stem
        if first in model.networks and first not in covered:
            files.append(new_file(_path(entry), _made(folder, entry)))
        elif first not in model.networks and entry.needed:
            notes.append(f"{entry.where}: this model has no {first}; the release's code needs it")
    if "vgg19" in model.networks and "vgg19" not in covered:
        origins = network_origins(folder.tensors["vgg19"], "vgg19", maps.TORCHVISION)
        files.append(new_file(VGG19, dict(origins)))
    if not any(name.startswith(TEXTS) for name in came.copies):
        notes.append(f"{TEXTS}: no part of this model; the release's code needs the download's")
    texts = _configs(folder, came.copies, covered)
    if unsaid := _unsaid(model):
        texts[TOLD] = model.to_json()
        notes.append(f"{TOLD}: only our converter reads it, for {', '.join(unsaid)}")
    return Export(
        files=(*came.files, *files),
        copies={name: path for name, path in came.copies.items() if name not in texts},
        texts={name: json.dumps(content, indent=2) + "\n" for name, content in texts.items()},
        notes=(*came.notes, *notes),
    )


def _configs(
    folder: Folder, copies: Mapping[str, Path], covered: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The release's configs that are not among the small files, or that the model has outgrown.

    Raises:
        ValueError: the networks that share one have not the same sizes, or a copy is damaged.
    """
    model, texts = folder.model, {}
    if not _says(copies.get(SCHEDULER_CONFIG), Schedule.from_hf, model.schedule):
        texts[SCHEDULER_CONFIG] = schedule_to_hf(model.schedule)
    for name in dict.fromkeys(entry.config for entry in ENTRIES if entry.config != TOLD):
        entries = [e for e in ENTRIES if e.config == name and e.roles[0].stem in model.networks]
        roles = [r for entry in entries for r in entry.roles if r.stem in model.networks]
        true = [
            _says(copies.get(name), functools.partial(_read, role, name), model.networks[role.stem])
            for role in roles
        ]
        if name == UNET_CONFIG:
            true.append(_says(copies.get(name), read_page, model.sizes.page))
        told_by_shapes = name not in copies and all(role.stem in covered for role in roles)
        if all(true) or told_by_shapes:
            continue
        contents = [_config(folder, entry) for entry in entries]
        if any(content != contents[0] for content in contents):
            stems = " and ".join(entry.roles[0].stem for entry in entries)
            raise ValueError(
                f"{folder.path}: {stems} share one {name} in the release: expected the same sizes, "
                f"got {' and '.join(map(str, contents))}; use `--to diffusers`, where each has its "
                "own"
            )
        texts[name] = contents[0]
    return texts


def _says(copy: Path | None, read: Callable[[dict[str, Any]], Any], expected: Any) -> bool:
    """Whether a small file is there and amounts to what is expected."""
    return copy is not None and named(copy, lambda: read(read_json(copy))) == expected


def _read(role: Role, name: str, content: dict[str, Any]) -> Any:
    return from_hf(role.kind, content, Path(name), **role.overrides)


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
    plain = release_model(networks, model.sizes.page, model.schedule)
    needed = {entry.roles[0].stem for entry in ENTRIES if entry.needed}
    vgg19 = networks.get("vgg19")
    recipe = model.recipe.to_json()
    beyond = {
        f"recipe {recipe if isinstance(recipe, str) else 'of its own'}": (
            model.recipe != plain.recipe
        ),
        f"{model.sizes}": model.sizes != plain.sizes,
        f"{model.sampling}": model.sampling != plain.sampling,
        "the context's network": "context" in networks,
        "which networks there are": bool(needed - networks.keys()),
        "which layers of VGG-19 are looked at": (
            vgg19 is not None and vgg19 != VGG19Config(widths=vgg19.widths)
        ),
    }
    return [what for what, yes in beyond.items() if yes]
