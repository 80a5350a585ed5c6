"""Writes a JAX folder from PyTorch files, tensor by tensor."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from converters.containers import FileRecord
from converters.manifest import EXTRA, VERBATIM, Manifest, SourceRecord, write_manifest
from converters.plan import Network, Plan, Source
from converters.streaming import Arena, byte_progress, in_parallel
from magiccolor_jax.checkpoint import write_config
from magiccolor_jax.files import atomic_directory, sha256_of
from magiccolor_jax.tensorfile import TensorFileWriter, TensorSpec


def convert_to_jax(plan: Plan, output: Path, *, progress: bool = True) -> None:
    """Carries a plan out; `output` appears whole or not at all.

    Raises:
        FileExistsError: `output` exists.
        ValueError: a source's data end before its header says.
        OSError: the disk is full.
    """
    extras = {
        f"{source.path}/{key}": spec
        for source in plan.sources
        for key, spec in source.extras.items()
    }
    with (
        atomic_directory(output) as folder,
        byte_progress("to JAX", plan.nbytes, show=progress) as advance,
    ):
        with TensorFileWriter(folder / EXTRA, extras) as extra:

            def convert(source: Source, arena: Arena) -> SourceRecord:
                _write_source(folder, source, extra, arena, advance)
                return _record(plan.root, source)

            records = in_parallel(convert, plan.sources, lambda source: source.nbytes)
        for name in plan.verbatim:
            target = folder / VERBATIM / name
            target.parent.mkdir(parents=True, exist_ok=True)
            advance(shutil.copyfile(plan.root / name, target).stat().st_size)
        write_manifest(folder, Manifest(sources=tuple(records), verbatim=plan.verbatim))
        write_config(folder, plan.model)


def _write_source(
    folder: Path,
    source: Source,
    extra: TensorFileWriter,
    arena: Arena,
    advance: Callable[[int], None],
) -> None:
    with ExitStack() as files:
        for file in source.files:
            files.enter_context(file)
        for network in source.networks:
            _write_network(folder, source, network, arena, advance)
        for key, spec in source.extras.items():
            arena.clear()
            extra.write(f"{source.path}/{key}", source.found[key].read(key, arena.empty))
            advance(spec.nbytes)


def _write_network(
    folder: Path, source: Source, network: Network, arena: Arena, advance: Callable[[int], None]
) -> None:
    items = source.wanted(network)
    specs = {item.path: TensorSpec(source.dtype(item), item.shape) for item in items}
    path = folder / f"{network.stem}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with TensorFileWriter(path, specs) as writer:
        for item in items:
            arena.clear()
            writer.write(item.path, source.read(network, item, arena.empty))
            advance(specs[item.path].nbytes)


def _record(root: Path, source: Source) -> SourceRecord:
    files = [
        FileRecord(
            path=str(file.path.relative_to(root)),
            container=file.container,
            tensors=file.specs,
            metadata=file.metadata,
            nesting=file.nesting,
            sha256=sha256_of(file.path),
        )
        for file in source.files
    ]
    return SourceRecord(
        path=source.path,
        style=source.style.name,
        networks=tuple(network.stem for network in source.networks),
        files=tuple(files),
    )
