"""The release's folder (release.md §1): which of its files feed which networks of ours.

A folder that `--to release` wrote may hold one file more (told.py); it is complete when it has the
networks that are named there.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from converters import configs, maps
from converters.plan import Network, Plan, Source, find_weights, open_source, read_json
from converters.told import AGAIN, TOLD, TRAINED, agreed, read_told
from converters.weightmap import WeightMap
from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.diffusion.schedule import Schedule
from magiccolor_jax.encoders.dinov2_config import DINOv2Config, infer_config
from magiccolor_jax.encoders.vgg import VGG19Config
from magiccolor_jax.models.context import ContextConfig
from magiccolor_jax.recipe import Recipe

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Role:
    """One network of the JAX folder."""

    stem: str
    kind: str
    weight_map: WeightMap
    overrides: dict[str, Any] = field(default_factory=dict)
    """What the role adds to the config: arguments of the reader in configs.py."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One set of weights of the release."""

    where: str
    """Folder, or file without its suffix."""
    config: str
    """Its config.json."""
    roles: tuple[Role, ...]
    needed: bool = True
    """False for what only trainings begin with."""


SD15 = "stable-diffusion-v1-5"
UNET_CONFIG = f"{SD15}/unet/config.json"
SCHEDULER_CONFIG = f"{SD15}/scheduler/scheduler_config.json"
DINOV2 = "dinov2_vitl14_reg4_pretrain"
VGG19_PATTERN = "vgg19-*.pth"
INIT = "init/"
"""Before the stems of networks that only trainings begin with."""


def _entry(where: str, *roles: Role, config: str | None = None, needed: bool = True) -> Entry:
    return Entry(where=where, config=config or f"{where}/config.json", roles=roles, needed=needed)


def _role(stem: str, kind: str, weight_map: WeightMap | None = None, **overrides: Any) -> Role:
    weight_map = weight_map or maps.BY_KIND[kind]
    return Role(stem=stem, kind=kind, weight_map=weight_map, overrides=overrides)


ENTRIES = (
    _entry(f"{TRAINED}/denoising_unet", _role("denoiser", "unet"), config=UNET_CONFIG),
    _entry(
        f"{TRAINED}/reference_unet",
        _role("reference", "unet", maps.REFERENCE_UNET, head=False),
        config=UNET_CONFIG,
    ),
    _entry(
        f"{TRAINED}/controlnet_sketch", _role("sketch_guider", "controlnet", maps.SKETCH_GUIDER)
    ),
    _entry(f"{TRAINED}/controlnet_multi", _role("instance_guider", "controlnet", adapter=True)),
    _entry("sd-vae-ft-mse", _role("vae", "vae")),
    _entry(
        "clip-vit-large-patch14",
        _role("clip_vision", "clip_vision"),
        _role("clip_text", "clip_text"),
    ),
    _entry(f"{SD15}/text_encoder", _role("text_encoder", "clip_text")),
    _entry(DINOV2, _role("dinov2", "dinov2"), config=f"{DINOV2}.json"),
    _entry(f"{SD15}/unet", _role(f"{INIT}unet", "unet"), needed=False),
    _entry(f"{SD15}/vae", _role(f"{INIT}vae", "vae"), needed=False),
    _entry("controlnet_lineart", _role(f"{INIT}controlnet_lineart", "controlnet"), needed=False),
    _entry(f"{TRAINED}/context", _role("context", "context"), config=TOLD, needed=False),
)

DOWNLOAD = "docs/release.md lists what to download, and where each file belongs."

START = ("no MagicColor weights: a start for training, not for colouring",)

TEXT_SUFFIXES = {".json", ".txt", ".md", ".model", ""}
TEXT_LIMIT = 20_000_000
"""Bytes; larger files are no tokenizers, configs or notes."""


def is_release(folder: Path) -> bool:
    """Whether a folder looks like the release, complete or not: it has one of its folders."""
    parts = {Path(entry.where).parts[0] for entry in ENTRIES}
    return any((folder / part).is_dir() for part in parts)


def is_start(folder: Path) -> bool:
    """Whether a folder has nothing of what the release trained: Stable Diffusion, a ControlNet and
    the frozen networks alone."""
    return not (folder / TRAINED).exists()


def plan_release(root: Path) -> Plan:
    """Reads every config and header, and checks every key and shape.

    Raises:
        FileNotFoundError: something is missing; one report of that and of all that does not fit.
        ValueError: one report of all that does not fit.
    """
    told = read_told(root)
    found = {entry.where: find_weights(root, entry.where) for entry in ENTRIES}
    missing = _missing(root, found, told)
    report = list(missing)

    def attempt(make: Callable[..., Made], *arguments: Any) -> Made | None:
        try:
            return make(root, *arguments)
        except (ValueError, OSError) as error:
            report.append(str(error))
            return None

    sources = [
        attempt(_open, entry, path)
        for entry in ENTRIES
        if (path := found[entry.where]) and _has_config(root, entry)
    ]
    sources += [attempt(_open_vgg19, p.name, told) for p in sorted(root.glob(VGG19_PATTERN))[:1]]
    # What lacks its file is in the report already.
    schedule = attempt(_schedule) if (root / SCHEDULER_CONFIG).is_file() else None
    page = attempt(_page) if (root / UNET_CONFIG).is_file() else None
    if report:
        text = "\n".join(dict.fromkeys(report))
        raise FileNotFoundError(text) if missing else ValueError(text)
    assert schedule is not None and page is not None, "or the report says why not"
    opened = [s for s in sources if s is not None]
    networks = {network.stem: network.config for s in opened for network in s.networks}
    plain = release_model(networks, page, schedule)
    if told is None:
        return _finish(root, opened, plain)
    return _finish(root, opened, agreed(root, told, plain))


def _has_config(root: Path, entry: Entry) -> bool:
    return entry.where == DINOV2 or (root / entry.config).is_file()


def _schedule(root: Path) -> Schedule:
    path = root / SCHEDULER_CONFIG
    return configs.named(path, lambda: Schedule.from_hf(read_json(path)))


def _page(root: Path) -> int:
    path = root / UNET_CONFIG
    return configs.named(path, lambda: configs.read_page(read_json(path)))


def _missing(root: Path, found: dict[str, str | None], told: ModelConfig | None) -> list[str]:
    """Says, in one entry, everything that the release needs and the folder lacks."""
    needed = [entry for entry in ENTRIES if entry.needed]
    if told is not None:
        needed = [e for e in ENTRIES if any(role.stem in told.networks for role in e.roles)]
    elif is_start(root):
        needed = [e for e in needed if not e.where.startswith(TRAINED)]
        needed += [e for e in ENTRIES if e.where == f"{SD15}/unet"]
    missing = [
        f"{entry.where}{'/' if (root / entry.where).is_dir() else ''}: no file of weights"
        for entry in needed
        if found[entry.where] is None
    ]
    wanted = [e.config for e in ENTRIES if e.where != DINOV2 and (e in needed or found[e.where])]
    missing += [
        f"{name}: missing"
        for name in dict.fromkeys([*wanted, SCHEDULER_CONFIG])
        if not (root / name).is_file()
    ]
    if not missing:
        return []
    lines = "\n  ".join(missing)
    if told is not None:
        return [f"{root}: has not all that {TOLD} names:\n  {lines}\n{AGAIN}"]
    ours = f"\n{TOLD}: {AGAIN}" if TOLD in wanted else ""
    return [f"{root}: not a complete download of the release:\n  {lines}\n{DOWNLOAD}{ours}"]


def _open(root: Path, entry: Entry, path: str) -> Source:
    files = open_source(root, path)
    keys = {key: spec.shape for file in files for key, spec in file.specs.items()}
    # A vision-only CLIP download has no text tower.
    roles = [
        role
        for role in entry.roles
        if len(entry.roles) == 1
        or role.kind != "clip_text"
        or any(key.startswith("text_model.") for key in keys)
    ]
    networks = [
        Network(
            stem=role.stem,
            kind=role.kind,
            config=_config(root, entry, role, keys),
            weight_map=role.weight_map,
        )
        for role in roles
    ]
    source = Source(path=path, files=files, networks=tuple(networks))
    source.check()
    return source


def _config(root: Path, entry: Entry, role: Role, keys: dict[str, tuple[int, ...]]) -> Any:
    """The network's sizes; DINOv2's official ones are known by their shapes."""
    path = root / entry.config
    if role.kind == "context":
        return infer_context(keys, str(root / entry.where))
    if role.kind == "dinov2":
        path = path if path.is_file() else root / entry.where / "config.json"
        if not path.is_file():
            return infer_dinov2(keys, root / entry.config)
    return configs.from_hf(role.kind, read_json(path), path, **role.overrides)


def infer_dinov2(keys: dict[str, tuple[int, ...]], expected: Path) -> DINOv2Config:
    """`infer_config` whose error names the JSON file that would help.

    Raises:
        ValueError: no official size has these shapes.
    """
    try:
        return infer_config(keys)
    except ValueError as error:
        raise ValueError(f"{error} (as {expected})") from None


def infer_context(shapes: Mapping[str, tuple[int, ...]], where: str) -> ContextConfig:
    """The widths of the context's network, by its shapes.

    Raises:
        ValueError: the file has not its layers.
    """
    try:
        (inputs,), (hidden, _), (outputs, _) = (
            shapes[f"{name}.weight"] for name in ("norm", "proj_in", "proj_out")
        )
    except (KeyError, ValueError):
        raise ValueError(
            f"{where}: expected the context's network (norm, proj_in, proj_out), got "
            f"{', '.join(list(shapes)[:4])}"
        ) from None
    return ContextConfig(inputs=inputs, hidden=hidden, outputs=outputs)


def infer_vgg19(shapes: dict[str, tuple[int, ...]], where: str) -> VGG19Config:
    """The widths of a torchvision file, by its shapes.

    Raises:
        ValueError: the file has not VGG-19's layers.
    """
    firsts = [f"features.{index}.weight" for index in (0, 5, 10, 19, 28)]
    if missing := [key for key in firsts if key not in shapes]:
        raise ValueError(f"{where}: expected torchvision's vgg19, but {missing} are missing")
    return VGG19Config(widths=tuple(shapes[key][0] for key in firsts))


def _open_vgg19(root: Path, name: str, told: ModelConfig | None) -> Source:
    """Widths are in the file; which layers are looked at may be told."""
    files = open_source(root, name)
    shapes = {key: spec.shape for file in files for key, spec in file.specs.items()}
    config = infer_vgg19(shapes, str(root / name))
    known = told and told.networks.get("vgg19")
    if isinstance(known, VGG19Config) and known.widths == config.widths:
        config = known
    network = Network(stem="vgg19", kind="vgg19", config=config, weight_map=maps.VGG19)
    source = Source(path=name, files=files, networks=(network,))
    source.check()
    return source


def release_model(networks: Mapping[str, Any], page: int, schedule: Schedule) -> ModelConfig:
    """What the release's own files amount to."""
    sizes = configs.read_sizes(page, networks.get("clip_vision"), networks.get("dinov2"))
    return ModelConfig(
        networks=dict(networks), recipe=Recipe.release(), sizes=sizes, schedule=schedule
    )


def _finish(root: Path, sources: list[Source], model: ModelConfig) -> Plan:
    used = {str(f.path.relative_to(root)) for source in sources for f in source.files}
    verbatim, left_out = _sort_files(root, used)
    notes = [*(START if is_start(root) else ())]
    if TOLD in verbatim:
        notes.append(f"recipe, sizes and default steps are those of {TOLD}")
    else:
        notes += _lacking(model.networks)
    notes += [f"left out, no part of the conversion: {name}" for name in left_out]
    return Plan(
        root=root,
        sources=tuple(sources),
        model=model,
        verbatim=tuple(verbatim),
        notes=tuple(notes),
    )


def _lacking(networks: Collection[str]) -> list[str]:
    """What the release does without, where its files alone say what it is."""
    notes = [
        f"{entry.where} is not there: stage 1 of the training cannot start from it"
        for entry in ENTRIES
        if entry.roles[0].stem.startswith(INIT) and entry.roles[0].stem not in networks
    ]
    if "clip_text" not in networks:
        notes.append(
            "clip-vit-large-patch14 has no text tower: the denoiser's and guiders' unconditional "
            f"token will come from {SD15}/text_encoder"
        )
    return notes


def _sort_files(root: Path, used: Iterable[str]) -> tuple[list[str], list[str]]:
    """(small files that travel as they are, everything else that is not converted)."""
    parts = {Path(entry.where).parts[0] for entry in ENTRIES}
    verbatim, left_out = [], []
    for path in _files_below(root):
        name = path.relative_to(root)
        if str(name) in used:
            continue
        ours = len(name.parts) == 1 or name.parts[0] in parts
        small = path.suffix in TEXT_SUFFIXES and path.stat().st_size <= TEXT_LIMIT
        (verbatim if ours and small else left_out).append(str(name))
    return verbatim, left_out


def _files_below(root: Path) -> list[Path]:
    """All files, those behind linked folders too, but none in a hidden folder (.git, .cache)."""
    files, seen = [], set()
    for folder, below, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        below[:] = [
            name
            for name in below
            if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in seen
        ]
        files += [path for name in names if (path := Path(folder, name)).is_file()]
    return sorted(files)
