"""One network by itself: a diffusers or transformers folder, a hub file, a torchvision file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from converters import configs, maps
from converters.command import Kind
from converters.plan import INDEX, Network, Plan, Source, find_weights, open_source, read_json
from converters.release import (
    TEXT_LIMIT,
    TEXT_SUFFIXES,
    infer_context,
    infer_dinov2,
    infer_vgg19,
    is_release,
)
from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.encoders.clip_config import CLIPTextConfig, CLIPVisionConfig
from magiccolor_jax.encoders.inception import InceptionConfig
from magiccolor_jax.encoders.vae import VAEConfig
from magiccolor_jax.lineart import anime2sketch, informative_drawings, sketch_keras
from magiccolor_jax.models.controlnet import ControlNetConfig
from magiccolor_jax.models.unet import UNetConfig
from magiccolor_jax.segment.sam_config import infer_config as infer_sam

Shapes = Mapping[str, tuple[int, ...]]

VISION_TOWER = "vision_model.embeddings.class_embedding"
TEXT_TOWER = "text_model.embeddings.token_embedding.weight"

LINE_MARKERS = (
    ("anime2sketch", ("model.model.0.weight", "model.model.3.weight")),
    ("sketch_keras", ("downblock_1.1.weight", "last_conv.weight")),
    ("informative_drawings", ("model0.1.weight", "model4.1.weight")),
)
"""Of extractors of line art, which may have been saved inside of PyTorch's DataParallel."""

MARKERS = (
    ("controlnet", ("controlnet_cond_embedding.conv_in.weight",)),
    ("unet", ("time_embedding.linear_1.weight", "up_blocks.0.resnets.0.norm1.weight")),
    ("context", ("norm.weight", "proj_in.weight", "proj_out.weight")),
    ("vae", ("encoder.conv_in.weight", "decoder.conv_in.weight")),
    ("clip_vision", (VISION_TOWER,)),
    ("clip_text", (TEXT_TOWER,)),
    ("clip_text", ("embeddings.token_embedding.weight", "final_layer_norm.weight")),
    ("dinov2", ("cls_token", "patch_embed.proj.weight")),
    ("dinov2", ("embeddings.cls_token", "embeddings.position_embeddings")),
    ("vgg19", ("features.0.weight", "features.34.weight")),
    ("sam", ("image_encoder.pos_embed", "mask_decoder.iou_token.weight")),
    ("sam", ("vision_encoder.pos_embed", "mask_decoder.iou_token.weight")),
    ("inception", ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight")),
    *(
        (kind, tuple(prefix + key for key in keys))
        for kind, keys in LINE_MARKERS
        for prefix in ("", "module.")
    ),
)
"""Kind of network, and keys that only its files have together; the first match counts."""


def plan_network(path: Path, *, kind: str | None, config: Path | None) -> Plan:
    """Plans the conversion of one file or folder; its file in the JAX folder is named by its kind.

    Args:
        path: a file of weights, an index of shards, or a folder with weights and config.json.
        kind: as in `checkpoint.KINDS`; default what the keys tell.
        config: a config.json elsewhere.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: it is no network that we have, or one report of all that does not fit.
    """
    root, name = _locate(path)
    files = open_source(root, name)
    shapes = {key: spec.shape for file in files for key, spec in file.specs.items()}
    kind = kind or detect_kind(shapes, path)
    both_towers = kind.startswith("clip_") and {VISION_TOWER, TEXT_TOWER} <= shapes.keys()
    config = config or _beside(root, name)
    networks = tuple(
        _network(each, _config(each, config, shapes, path))
        for each in (("clip_vision", "clip_text") if both_towers else (kind,))
    )
    source = Source(path=name, files=files, networks=networks)
    try:
        source.check()
    except ValueError as error:
        assumed = config is None and kind not in LINE_SIZES
        hint = (
            "\nno config.json is beside it, so official sizes were assumed: give yours by --config"
        )
        raise ValueError(f"{error}{hint if assumed else ''}") from None
    texts = _texts(path, root, name, config)
    used = {*texts, *(file.path.name for file in files)}
    others = sorted(p.name for p in path.iterdir() if p.is_file()) if path.is_dir() else []
    notes = [f"left out: {other}" for other in others if other not in used]
    if kind == "unet" and not networks[0].config.head:
        notes.append("no conv_norm_out: taken for a reference UNet, which has no output head")
    return Plan(
        root=root,
        sources=(source,),
        model=ModelConfig(networks={network.stem: network.config for network in networks}),
        verbatim=tuple(texts),
        notes=tuple(notes),
    )


def _network(kind: str, config: Any) -> Network:
    """A network that is named by its kind."""
    headless = kind == "unet" and not config.head
    weight_map = maps.REFERENCE_UNET if headless else maps.BY_KIND[kind]
    return Network(stem=kind, kind=kind, config=config, weight_map=weight_map)


def detect_kind(keys: Shapes, path: Path) -> str:
    """Which network a file holds.

    Raises:
        ValueError: none that we know.
    """
    for kind, needed in MARKERS:
        if all(key in keys for key in needed):
            return kind
    raise ValueError(
        f"{path}: the keys are of no network that we have ({', '.join(list(keys)[:4])}, ...); "
        f"if you know better, say so by --kind: {', '.join(get_args(Kind))}"
    )


def _locate(path: Path) -> tuple[Path, str]:
    """(folder, name of the weights in it)."""
    if path.is_file():
        return path.parent, path.name
    name = find_weights(path, ".")
    if name is None:
        held = sorted(entry.name for entry in path.iterdir())
        above = "; the folder above looks like the release" if is_release(path.parent) else ""
        raise FileNotFoundError(
            f"{path}: expected the release's folder, a JAX folder, or one network's folder with "
            f"diffusion_pytorch_model.*, model.safetensors or pytorch_model.bin; it holds "
            f"{held}{above}"
        )
    return path, name


def _beside(root: Path, name: str) -> Path | None:
    """A config next to the weights: under their name, or config.json."""
    stem = INDEX.sub("", name).rpartition(".")[0]
    candidates = (root / f"{stem}.json", root / "config.json")
    return next((path for path in candidates if path.is_file()), None)


def _config(kind: str, path: Path | None, shapes: Shapes, where: Path) -> Any:
    """The network's sizes: from its file, else what its shapes tell, else the official ones."""
    roles: dict[str, Any] = {}
    if kind == "unet":
        roles = {"head": "conv_norm_out.weight" in shapes}
    elif kind == "controlnet":
        roles = {"adapter": "dino_adapter.0.weight" in shapes}
    if kind == "context":
        return infer_context(shapes, str(where))
    if kind == "vgg19":
        return infer_vgg19(dict(shapes), str(where))
    if kind in LINE_SIZES:
        return configs.named(where, lambda: LINE_SIZES[kind](_plain(shapes)))
    if path is not None:
        return configs.from_hf(kind, read_json(path), path, **roles)
    if kind == "dinov2":
        return infer_dinov2(dict(shapes), Path("config.json"))
    if kind == "sam":
        return configs.named(where, lambda: infer_sam(shapes))
    if kind == "controlnet":
        hint = shapes["controlnet_cond_embedding.conv_in.weight"][1]
        return ControlNetConfig(conditioning_channels=hint, **roles)
    official = {
        "unet": UNetConfig.sd15,
        "vae": VAEConfig.sd15,
        "clip_vision": CLIPVisionConfig.vit_l14,
        "clip_text": CLIPTextConfig.vit_l14,
        "inception": InceptionConfig.fid,
    }
    return official[kind](**roles)


LINE_SIZES: dict[str, Callable[[Shapes], Any]] = {
    "anime2sketch": anime2sketch.infer_config,
    "sketch_keras": sketch_keras.infer_config,
    "informative_drawings": informative_drawings.infer_config,
}
"""Kind of an extractor of line art -> its sizes, by its shapes."""


def _plain(shapes: Shapes) -> Shapes:
    """Without what PyTorch's DataParallel puts before every key."""
    return {key.removeprefix("module."): shape for key, shape in shapes.items()}


def _texts(path: Path, root: Path, name: str, config: Path | None) -> list[str]:
    """Small files that travel along: a folder's own, or what describes a single file."""
    if path.is_dir():
        small = (
            entry
            for entry in sorted(path.iterdir())
            if entry.is_file()
            and entry.suffix in TEXT_SUFFIXES
            and entry.stat().st_size <= TEXT_LIMIT
        )
        return [entry.name for entry in small]
    described = [config.name] if config is not None and config.parent == root else []
    return described + ([name] if INDEX.search(name) else [])
