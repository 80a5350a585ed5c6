"""What goes back to PyTorch: a JAX folder, or the one that a training run amounts to."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.manifest import EXTRA, VERBATIM, Manifest, SourceRecord, check_inside, read_manifest
from magiccolor_jax.checkpoint import ModelConfig, check_weights, read_config
from magiccolor_jax.tensorfile import TensorFile, Tensors


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A model, open for reading."""

    path: Path
    """Names it in messages."""
    root: Path
    """Where the manifest and its files lie."""
    model: ModelConfig
    manifest: Manifest | None
    tensors: Mapping[str, Tensors]
    """Stem -> the network's parameters."""

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        """What it was converted from; nothing for a model of our own."""
        return self.manifest.sources if self.manifest else ()

    @property
    def verbatim(self) -> dict[str, Path]:
        """Path in the source -> the small file, as it came."""
        names = self.manifest.verbatim if self.manifest else ()
        return {name: self.root / VERBATIM / name for name in names}


def open_folder(folder: Path) -> Folder:
    """Reads what describes a JAX folder, and looks whether its files are there.

    Raises:
        FileNotFoundError: one report of all that is missing.
        ValueError: config.json or manifest.json is damaged, or names paths outside the folder; or
            one report of every tensor that does not fit config.json.
    """
    model = read_config(folder)
    check_inside(model.networks, folder)
    manifest = _open_manifest(folder, model.networks)
    check_weights(folder, model)
    tensors = {stem: TensorFile(folder / f"{stem}.safetensors") for stem in model.networks}
    return Folder(path=folder, root=folder, model=model, manifest=manifest, tensors=tensors)


def open_run(run: Path, began: Path, model: ModelConfig, trained: Mapping[str, Tensors]) -> Folder:
    """The model of a training run's checkpoint, as `open_folder` would find it once written.

    Args:
        began: the model folder that the run began with.
        trained: stem -> parameters of the networks that are the run's own.

    Raises:
        FileNotFoundError, ValueError: as `open_folder`.
    """
    check_inside(model.networks, run)
    frozen = {stem: cfg for stem, cfg in model.networks.items() if stem not in trained}
    manifest = _open_manifest(began, frozen)
    check_weights(began, dataclasses.replace(model, networks=frozen))
    files = {stem: TensorFile(began / f"{stem}.safetensors") for stem in frozen}
    tensors: dict[str, Tensors] = {**trained, **files}
    return Folder(path=run, root=began, model=model, manifest=manifest, tensors=tensors)


def _open_manifest(folder: Path, stems: Iterable[str]) -> Manifest | None:
    """The manifest, once every file that is needed is known to be there."""
    manifest = read_manifest(folder)
    needed = [f"{stem}.safetensors" for stem in stems]
    if manifest is not None:
        check_inside(manifest.verbatim, folder)
        check_inside((file.path for s in manifest.sources for file in s.files), folder)
        needed += [EXTRA, *(f"{VERBATIM}/{name}" for name in manifest.verbatim)]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder}: these files are missing: {', '.join(missing)}")
    return manifest
