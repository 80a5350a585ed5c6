"""Writes a stand-in for the release's download: every file of release.md §1 but `Annotators`, with
the literal names, keys, shapes and dtypes (converters/keys), and random weights.

    python scripts/make_release_checkpoint.py --size nano --out runs/release-nano
    python scripts/make_release_checkpoint.py --size full --out /data/release      # about 19 GB

The weights depend on the seed and the file's and tensor's names alone. No tensor is left at a
special value (norms are near one, not one; zero convolutions are not zero), and activations stay
O(1).
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Shaped

from converters.containers import Container, FileRecord, write_weights
from converters.keylist import KEYS, expected_tensors
from converters.streaming import Arena, byte_progress, check_space, gigabytes, in_parallel
from magiccolor_jax.files import atomic_directory
from magiccolor_jax.tensorfile import TensorSpec

Size = Literal["full", "nano"]

CONFIGS = KEYS.with_name("configs.json")
UNET_CONFIG = "stable-diffusion-v1-5/unet/config.json"
DINOV2_CONFIG = "dinov2_vitl14_reg4_pretrain.json"

FILES = (
    ("stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors", "unet", UNET_CONFIG),
    ("stable-diffusion-v1-5/vae/diffusion_pytorch_model.safetensors", "vae", None),
    ("stable-diffusion-v1-5/text_encoder/model.safetensors", "clip_text", None),
    ("sd-vae-ft-mse/diffusion_pytorch_model.bin", "vae", None),
    ("clip-vit-large-patch14/model.safetensors", "clip", None),
    ("dinov2_vitl14_reg4_pretrain.pth", "dinov2", DINOV2_CONFIG),
    ("controlnet_lineart/diffusion_pytorch_model.safetensors", "controlnet", None),
    ("MagicColor/denoising_unet.pth", "unet", UNET_CONFIG),
    ("MagicColor/reference_unet.pth", "unet_without_norm_out", UNET_CONFIG),
    ("MagicColor/controlnet_sketch/diffusion_pytorch_model.safetensors", "guider", None),
    ("MagicColor/controlnet_multi/diffusion_pytorch_model.safetensors", "guider", None),
)
"""Path, section of converters/keys/release.txt, config (None: config.json beside it)."""

VGG19 = "vgg19-dcbb9e9d.pth"
VGG19_SIZES = {
    "full": {"w1": 64, "w2": 128, "w3": 256, "w4": 512, "w5": 512, "hidden": 4096, "classes": 1000},
    "nano": {"w1": 4, "w2": 6, "w3": 8, "w4": 10, "w5": 12, "hidden": 16, "classes": 10},
}

CONTAINERS: dict[str, Container] = {
    ".safetensors": "safetensors",
    ".bin": "torch",
    ".pth": "torch",
}
TEXTS = {
    "stable-diffusion-v1-5/tokenizer/merges.txt": "#version: 0.2\n",
    "README.md": "Random weights: a stand-in for the release's files, good for tests only.\n",
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """A release folder with random weights."""

    out: Path
    """The folder to make; it must not exist yet."""
    size: Size = "nano"
    """`full`: the published sizes, about 19 GB; `nano`: a few MB, page of 128 px."""
    seed: int = 0
    """Other seeds give other weights."""
    containers: Literal["original", "safetensors"] = "original"
    """`safetensors` writes no .pth and .bin, so PyTorch is needed neither here nor to convert."""
    vgg19: bool = False
    """Adds torchvision's VGG-19 (0.57 GB at full size), which training losses use."""


def main(args: Args) -> None:
    """Writes the folder atomically.

    Raises:
        FileExistsError: `out` exists.
        OSError: the disk has too little room.
    """
    configs = load_configs(args.size)
    records = list(release_records(args, configs))
    total = sum(record.nbytes for record in records)
    check_space(args.out, total)
    print(f"{args.out}: {len(records)} files of weights, {gigabytes(total)}")
    with (
        atomic_directory(args.out) as folder,
        byte_progress("random weights", total) as advance,
    ):
        texts = {name: json.dumps(config, indent=2) + "\n" for name, config in configs.items()}
        if args.size == "full":
            del texts[DINOV2_CONFIG]  # the official sizes are known by their shapes
        for name, text in (texts | TEXTS).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

        def write(record: FileRecord, arena: Arena) -> None:
            tensors = _random_file(record, args.seed, arena, advance)
            write_weights(folder / record.path, record, tensors)

        in_parallel(write, records, lambda record: record.nbytes)


def load_configs(size: Size) -> dict[str, Any]:
    """Path -> content of every JSON file of the release at this size."""
    stored = json.loads(CONFIGS.read_text())
    configs = stored["full"]
    return _merged(configs, stored["nano"]) if size == "nano" else configs


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if nested else value
    return merged


def release_records(args: Args, configs: dict[str, Any]) -> Iterator[FileRecord]:
    """What each file of weights holds."""
    for path, section, config in FILES:
        if args.containers == "safetensors":
            path = str(Path(path).with_suffix(".safetensors"))
        name = config or str(Path(path).with_name("config.json"))
        sizes = SIZES_OF[section](configs[name])
        container = CONTAINERS[Path(path).suffix]
        yield _record(path, container, expected_tensors(section, sizes))
    if args.vgg19:
        sizes = VGG19_SIZES[args.size] | {"pooled": 49}
        yield _record(VGG19, "torch_legacy", expected_tensors("vgg19", sizes))


def _record(path: str, container: Container, tensors: dict[str, TensorSpec]) -> FileRecord:
    if container != "safetensors":
        return FileRecord(path=path, container=container, tensors=tensors)
    by_width = sorted(tensors, key=lambda key: (-tensors[key].dtype.itemsize, key))
    return FileRecord(
        path=path,
        container=container,
        tensors={key: tensors[key] for key in by_width},  # the order of safetensors' own writer
        metadata={"format": "pt"},
    )


def _levels(config: dict[str, Any]) -> dict[str, int]:
    return {f"c{level}": width for level, width in enumerate(config["block_out_channels"])}


def _unet_sizes(config: dict[str, Any]) -> dict[str, int]:
    return _levels(config) | {
        "context": config["cross_attention_dim"],
        "latent": config["in_channels"],
    }


def _controlnet_sizes(config: dict[str, Any]) -> dict[str, int]:
    widths = enumerate(config["conditioning_embedding_out_channels"])
    hint = {"hint": config["conditioning_channels"]}
    return _unet_sizes(config) | hint | {f"e{level}": width for level, width in widths}


def _vae_sizes(config: dict[str, Any]) -> dict[str, int]:
    return _levels(config) | {
        "layers": config["layers_per_block"],
        "latent": config["latent_channels"],
        "picture": config["in_channels"],
    }


def _tower_sizes(config: dict[str, Any], tower: str) -> dict[str, int]:
    return {
        f"{tower}_width": config["hidden_size"],
        f"{tower}_mlp": config["intermediate_size"],
        f"{tower}_layers": config["num_hidden_layers"],
    }


def _text_sizes(config: dict[str, Any]) -> dict[str, int]:
    return _tower_sizes(config, "text") | {
        "positions": config["max_position_embeddings"],
        "vocabulary": config["vocab_size"],
    }


def _clip_sizes(config: dict[str, Any]) -> dict[str, int]:
    vision = config["vision_config"]
    return (
        _text_sizes(config["text_config"])
        | _tower_sizes(vision, "vision")
        | {
            "patch": vision["patch_size"],
            "patches": (vision["image_size"] // vision["patch_size"]) ** 2,
            "projection": config["projection_dim"],
        }
    )


def _dinov2_sizes(config: dict[str, Any]) -> dict[str, int]:
    return {
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "registers": config["num_register_tokens"],
        "patch": config["patch_size"],
        "patches": (config["image_size"] // config["patch_size"]) ** 2,
    }


SIZES_OF = {
    "unet": _unet_sizes,
    "unet_without_norm_out": _unet_sizes,
    "controlnet": _controlnet_sizes,
    "guider": _controlnet_sizes,
    "vae": _vae_sizes,
    "clip_text": _text_sizes,
    "clip": _clip_sizes,
    "dinov2": _dinov2_sizes,
}
"""Section of converters/keys/release.txt -> the sizes it needs, from the file's config."""


def _random_file(
    record: FileRecord, seed: int, arena: Arena, advance: Callable[[int], None]
) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
    for key, spec in record.tensors.items():
        arena.clear()
        yield key, _named_tensor(record, seed, key)
        advance(spec.nbytes)


def _named_tensor(record: FileRecord, seed: int, key: str) -> Shaped[np.ndarray, "..."]:
    # Without the suffix, so that both containers hold the same weights.
    name = f"{Path(record.path).with_suffix('')}/{key}"
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    return random_tensor(key, record.tensors[key], generator)


def random_tensor(
    key: str, spec: TensorSpec, generator: np.random.Generator
) -> Shaped[np.ndarray, "..."]:
    """Values of the size that training would give them, and none of them special.

    Args:
        key: PyTorch's name; it tells a norm's scale from a bias.
    """
    if spec.dtype == np.int64:  # position_ids
        return np.arange(spec.shape[-1]).reshape(spec.shape)
    tensor = generator.standard_normal(spec.shape, np.float32)
    if np.ndim(tensor) == 0:  # logit_scale, a float from NumPy
        return np.array(tensor + 2.6592, np.float32)
    leaf = key.rpartition(".")[2]
    if "embedding.weight" in key and "patch" not in key:
        tensor *= 0.5
    elif leaf == "weight" and tensor.ndim > 1:
        tensor *= np.float32(np.prod(spec.shape[1:]) ** -0.5)
    elif leaf == "weight":
        tensor *= 0.1
        tensor += 1.0
    elif leaf == "gamma":  # DINOv2's layer scale
        tensor *= 0.05
        tensor += 0.3
    else:  # biases, class and register tokens, position tables
        tensor *= 0.1 if leaf == "bias" else 0.5
    return tensor


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
