"""Does what the command line says: plan, tell, check the disk, convert, verify."""

import os
from dataclasses import replace
from pathlib import Path

from converters import metrics, release, single, to_diffusers, to_jax, to_release, to_torch
from converters.command import ConvertArgs
from converters.folder import open_folder, open_run
from converters.from_run import ModelExport
from converters.plan import Plan, read_json
from converters.streaming import check_space, gigabytes
from converters.to_torch import Export
from magiccolor_jax.checkpoint import CONFIG_NAME, FORMAT
from magiccolor_jax.embedded import model_folder
from magiccolor_jax.tensorfile import TensorSpec
from magiccolor_jax.training.export import TrainedModel, find_step, is_run


def convert(args: ConvertArgs) -> None:
    """Does what the arguments say.

    Raises:
        ValueError: the source, or the arguments, cannot be converted; says why and what to do.
        OSError: files are missing, the output exists, or the disk is too small.
        ImportError: PyTorch, or the extra `parity`, is needed and not installed.
    """
    args = replace(args, source=model_folder(args.source))
    if not args.source.exists():
        raise FileNotFoundError(f"{args.source}: no such file or folder")
    _check_output(args)
    if args.verify:
        from converters import verify

        verify.check_installed()
    plan = plan_conversion(args)
    if args.verify:
        if not isinstance(plan, Plan):
            what = "a JAX folder" if (args.source / CONFIG_NAME).is_file() else "a training run"
            raise ValueError(f"--verify goes with a conversion to JAX, and SOURCE is {what}")
        verify.check_kinds(plan)
    print("\n".join(describe(plan)))
    _name_leftovers(args.output)
    check_space(args.output, plan.disk)
    if args.dry_run:
        print("dry run: nothing written")
    elif isinstance(plan, Export):
        to_torch.convert_to_torch(plan, args.output)
    elif isinstance(plan, ModelExport):
        plan.write()
    else:
        to_jax.convert_to_jax(plan, args.output)
        if args.verify:
            verify.verify(plan, args.output)


def _check_output(args: ConvertArgs) -> None:
    """Raises OSError or ValueError where the output cannot be made, before any work is done."""
    if os.path.lexists(args.output):
        raise FileExistsError(
            f"{args.output}: the output must not exist yet; remove it or choose another name"
        )
    if args.output.resolve().is_relative_to(args.source.resolve()):
        raise ValueError(
            f"{args.output}: the output must lie outside of SOURCE ({args.source}), or the next "
            "conversion would take it for a part of it; choose another place"
        )
    if args.dry_run and args.verify:
        raise ValueError("--verify runs what was converted, and --dry-run converts nothing")


def plan_conversion(args: ConvertArgs) -> Plan | Export | ModelExport:
    """The checked plan, by what SOURCE is; nothing is written.

    Raises:
        ValueError: as `convert`.
        OSError: as `convert`.
        ImportError: as `convert`.
    """
    if is_run(args.source):
        _refuse_options_of_one_network(args, "a training run")
        trained = TrainedModel(args.source, find_step(args.source, args.checkpoint or "latest"))
        if args.to in (None, "jax"):
            return ModelExport(trained, args.output)
        folder = open_run(args.source, trained.began, trained.config, trained.trained)
        return PLANNERS[args.to](folder)
    if args.checkpoint is not None:
        raise ValueError(f"--checkpoint goes with a training run, and {args.source} is none")
    ours = args.source / CONFIG_NAME
    if ours.is_file() and read_json(ours).get("format") == FORMAT:
        _refuse_options_of_one_network(args, "a JAX folder")
        if args.to == "jax":
            raise ValueError(f"{args.source}: is a JAX folder: use --to release or --to diffusers")
        return PLANNERS[args.to or "release"](open_folder(args.source))
    if args.to not in (None, "jax"):
        raise ValueError(
            f"--to {args.to} goes with a JAX folder, and {args.source} is none: convert it to JAX "
            "first"
        )
    if args.source.is_dir() and release.is_release(args.source):
        _refuse_options_of_one_network(args, "a release folder")
        return release.plan_release(args.source)
    if args.source.is_dir() and metrics.is_metrics(args.source):
        _refuse_options_of_one_network(args, "a folder of networks that judge pictures")
        return metrics.plan_metrics(args.source)
    return single.plan_network(args.source, kind=args.kind, config=args.config)


PLANNERS = {"release": to_release.plan_return, "diffusers": to_diffusers.plan_library}
"""Way back to PyTorch, by `--to`."""


def _refuse_options_of_one_network(args: ConvertArgs, what: str) -> None:
    if args.kind is not None or args.config is not None:
        raise ValueError(
            f"--kind and --config describe a single network, and {args.source} is {what}: leave "
            "them out"
        )


def describe(plan: Plan | Export | ModelExport) -> list[str]:
    """What will be written, line by line."""
    notes = list(plan.notes)
    if isinstance(plan, Plan):
        rows = [
            (
                source.path,
                source.style.name,
                *_contents([spec for file in source.files for spec in file.specs.values()]),
                "-> " + ", ".join(network.stem for network in source.networks),
            )
            for source in plan.sources
        ]
        rest = f"{len(plan.verbatim)} small files"
        notes += [
            f"{file.path}: left out, beside the weights: {', '.join(file.beside)}"
            for source in plan.sources
            for file in source.files
            if file.beside
        ]
    elif isinstance(plan, ModelExport):
        rows = [
            (f"{stem}.safetensors", *_contents([*network.specs.values()]))
            for stem, network in plan.trained.trained.items()
        ]
        rest = f"{len(plan.trained.links())} files that the run began with"
    else:
        rows = [
            (file.record.path, file.record.container, *_contents([*file.record.tensors.values()]))
            for file in plan.files
        ]
        rest = f"{len(plan.copies) + len(plan.texts)} small files"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.append(f"and {rest}; needs {gigabytes(plan.disk)} of disk")
    return lines + [f"note: {note}" for note in notes]


def _contents(specs: list[TensorSpec]) -> tuple[str, str]:
    """(types, size) of a file's tensors; the few integers among them are not worth a word."""
    kinds = sorted({spec.dtype.name for spec in specs if spec.dtype.kind != "i"})
    return ", ".join(kinds), gigabytes(sum(spec.nbytes for spec in specs))


def _name_leftovers(output: Path) -> None:
    """Names what a killed run left beside the output; removing is the user's to decide."""
    for path in sorted(output.absolute().parent.glob(f".{output.name}.*.tmp")):
        print(f"note: {path} is left from an interrupted run (or one that still runs): remove it")
