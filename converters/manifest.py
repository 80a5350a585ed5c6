"""manifest.json of a JAX folder: where everything came from, so that it can go back there."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converters.containers import FileRecord
from magiccolor_jax.tensorfile import DTYPES, NAMES, TensorSpec

NAME = "manifest.json"
VERSION = 1
EXTRA = "extra.safetensors"
"""Tensors that no network uses, as `SOURCE_PATH/KEY`, in the source's own orientation."""
VERBATIM = "files"
"""Folder of the small files that travel as they are."""


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """One set of weights, as it came."""

    path: str
    """File, or index of the shards, relative to the converted folder."""
    style: str
    """`KeyStyle.name`."""
    networks: tuple[str, ...]
    """Stems in the JAX folder."""
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is needed to write the source again."""

    sources: tuple[SourceRecord, ...]
    verbatim: tuple[str, ...] = ()
    """Relative paths, the same under `files/` and in the source."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json."""
    content = {
        "format_version": VERSION,
        "sources": [_source_to_json(source) for source in manifest.sources],
        "files": list(manifest.verbatim),
    }
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The inverse of `write_manifest`; None where there is no manifest (a model of our own).

    Raises:
        ValueError: it is damaged, or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content["format_version"] != VERSION:
            raise ValueError(f"format_version must be {VERSION}, got {content['format_version']}")
        sources = tuple(_source_from_json(source) for source in content["sources"])
        return Manifest(sources=sources, verbatim=tuple(content["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a manifest that can be read: {error!r}") from None


def check_inside(names: Iterable[str], where: Path) -> None:
    """Keeps what a folder from elsewhere names inside the folder that is written.

    Raises:
        ValueError: a path is absolute or climbs out.
    """
    paths = {name: PurePosixPath(name) for name in names}
    if bad := [name for name, path in paths.items() if path.is_absolute() or ".." in path.parts]:
        raise ValueError(f"{where}: expected paths inside the folder, got {bad}: do not trust it")


def _source_to_json(source: SourceRecord) -> dict[str, Any]:
    return {
        "path": source.path,
        "style": source.style,
        "networks": list(source.networks),
        "files": [
            {
                "path": file.path,
                "container": file.container,
                "sha256": file.sha256,
                "metadata": file.metadata,
                "nesting": file.nesting,
                "tensors": {k: _spec_to_text(spec) for k, spec in file.tensors.items()},
            }
            for file in source.files
        ],
    }


def _source_from_json(content: dict[str, Any]) -> SourceRecord:
    files = [
        FileRecord(**(f | {"tensors": {k: _spec_from_text(v) for k, v in f["tensors"].items()}}))
        for f in content["files"]
    ]
    return SourceRecord(
        path=content["path"],
        style=content["style"],
        networks=tuple(content["networks"]),
        files=tuple(files),
    )


def _spec_to_text(spec: TensorSpec) -> str:
    """`F32 320 4 3 3`."""
    return " ".join([NAMES[spec.dtype], *map(str, spec.shape)])


def _spec_from_text(text: str) -> TensorSpec:
    dtype, *shape = text.split()
    return TensorSpec(DTYPES[dtype], tuple(map(int, shape)))
