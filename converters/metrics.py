"""The networks that judge pictures: their official files, in one folder, for `evaluate`."""

from pathlib import Path

from converters import maps
from converters.plan import Network, Plan, Source, open_source
from magiccolor_jax.checkpoint import ModelConfig
from magiccolor_jax.encoders.inception import InceptionConfig
from magiccolor_jax.encoders.lpips import BACKBONES, LPIPSConfig
from magiccolor_jax.evaluation.judges import JUDGES, Download

PREFIX = "lpips_"


def is_metrics(folder: Path) -> bool:
    """Whether a folder holds one of these files."""
    return any(_found(folder, file) for files in JUDGES.values() for file in files)


def plan_metrics(root: Path) -> Plan:
    """Plans the conversion of every network whose files are there.

    Raises:
        FileNotFoundError: a network lacks one of its two files.
        ValueError: one report of every missing, misshapen and unknown key.
    """
    sources, notes, missing = [], [], []
    for stem, files in JUDGES.items():
        names = [_found(root, file) for file in files]
        lacking = [file for file, name in zip(files, names, strict=True) if name is None]
        if not lacking:
            sources.append(_open(root, stem, [name for name in names if name is not None]))
        elif len(lacking) < len(files):
            missing += [f"  {stem}: {file.pattern}, from {file.url}" for file in lacking]
        else:
            where = " and ".join(file.url for file in files)
            notes.append(f"no {stem}: it is made from {where}")
    if missing:
        raise FileNotFoundError(
            f"{root}: files are missing beside the others:\n" + "\n".join(missing)
        )
    report = [problem for source in sources if (problem := _problem(source))]
    if report:
        raise ValueError("\n".join(report))
    networks = {network.stem: network.config for source in sources for network in source.networks}
    used = {file.path.name for source in sources for file in source.files}
    notes += [f"left out: {path.name}" for path in sorted(root.iterdir()) if path.name not in used]
    return Plan(
        root=root,
        sources=tuple(sources),
        model=ModelConfig(networks=networks),
        notes=tuple(notes),
    )


def _found(root: Path, file: Download) -> str | None:
    return next((path.name for path in sorted(root.glob(file.pattern))), None)


def _open(root: Path, stem: str, names: list[str]) -> Source:
    files = tuple(each for name in names for each in open_source(root, name))
    kind = stem.split("_")[0]
    shapes = {key: spec.shape for file in files for key, spec in file.specs.items()}
    config = (
        InceptionConfig.fid()
        if kind == "inception"
        else infer_lpips(stem.removeprefix(PREFIX), shapes, root)
    )
    network = Network(stem=stem, kind=kind, config=config, weight_map=maps.BY_KIND[kind])
    return Source(path=names[0], files=files, networks=(network,))


def _problem(source: Source) -> str | None:
    """The report of what does not fit, if anything."""
    try:
        source.check()
    except ValueError as error:
        return str(error)
    return None


def infer_lpips(backbone: str, shapes: dict[str, tuple[int, ...]], where: Path) -> LPIPSConfig:
    """The widths of a torchvision file, by its shapes.

    Raises:
        ValueError: the file has not the backbone's layers.
    """
    firsts = [f"features.{block.convs[0].index}.weight" for block in BACKBONES[backbone]]
    if missing := [key for key in firsts if key not in shapes]:
        raise ValueError(
            f"{where}: expected the convolutions of LPIPS' {backbone}, but {missing} are missing"
        )
    return LPIPSConfig(backbone=backbone, widths=tuple(shapes[key][0] for key in firsts))
