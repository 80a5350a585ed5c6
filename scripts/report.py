"""What the scripts share: rows as a table and as JSON, subprocesses, the folders they work on."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]

Row = Mapping[str, Any]


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints rows as a table; the columns are the keys of the first row."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right" if _is_number(rows[0][name]) else "left")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    # Without a terminal rich assumes 80 columns and cuts the cells.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "ok" if value else "[bold red]MISSED[/]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_json(path: Path | None, content: Any) -> None:
    """Writes the results, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n")


def run_python(*command: object, threads: int | None = None) -> None:
    """Runs Python on a script or module of the repository and waits for it.

    Args:
        threads: cores that the process may use; default all.

    Raises:
        RuntimeError: it failed; its own error is on standard error.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        # The oracle is a part of the tests.
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}")


def folders(size: str, release: Path | None, model: Path | None, work: Path) -> tuple[Path, Path]:
    """A release and its converted model: those given, else a stand-in that is made in `work`.

    Raises:
        ValueError: a model without the release that it was converted from.
    """
    if model is not None and release is None:
        raise ValueError("--model needs --release, the folder that it was converted from")
    if release is None:
        release = work / f"release-{size}"
        if not release.exists():
            run_python("scripts/make_release_checkpoint.py", "--size", size, "--out", release)
    if model is None:
        model = work / f"model-{size}"
        if not model.exists():
            run_python("-m", "converters", release.absolute(), model)
    return release.absolute(), model.absolute()
