"""What is known of a run from outside: run.json, for sweeps and for `convert`."""

import dataclasses
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from magiccolor_jax.files import atomic_file, code_version
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.training.config import TrainConfig

RECORD = "run.json"


class RunRecord:
    """The content of run.json; written by the first process alone."""

    def __init__(self, config: TrainConfig, model: dict[str, Any], fingerprint: str):
        """Args:
        model: what the trained model's config.json will say.
        fingerprint: of the data's plan.
        """
        self.path = config.out / RECORD
        self.earlier = earlier = read_record(config.out) if self.path.is_file() else {}
        """What an earlier part of the run has written."""
        self.content = {
            "state": "running",
            "step": 0,
            "steps": config.steps,
            "seed": config.seed,
            "metrics": earlier.get("metrics", {}),
            "error": None,
            "start": earlier.get("start"),
            "started": earlier.get("started", _now()),
            "updated": _now(),
            "code": code_version(),
            "jax": version("jax"),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "processes": jax.process_count(),
            "data": fingerprint,
            "config": plain(config),
            "model": model,
        }

    def update(self, **changes: Any) -> None:
        """Changes fields and writes the file."""
        self.content |= changes | {"updated": _now()}
        if jax.process_index() == 0:
            with atomic_file(self.path) as temporary:
                temporary.write_text(json.dumps(self.content, indent=2) + "\n")

    def failed_to_start(self, error: BaseException) -> None:
        """Notes why; what an earlier part of the run says of itself stays."""
        if self.earlier and self.earlier["state"] != "running":  # running: it was killed
            return
        self.content = self.earlier or self.content
        self.update(state="failed", error=f"{type(error).__name__}: {error}")


def read_record(run: Path) -> dict[str, Any]:
    """The content of a run's run.json.

    Raises:
        FileNotFoundError: the folder is no run's.
        ValueError: the file is damaged.
    """
    path = run / RECORD
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the folder of a training run holds {RECORD}, which `magiccolor train` writes"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from None
    if not isinstance(content, dict) or not {"config", "model", "state"} <= set(content):
        raise ValueError(f"{path}: expected what `magiccolor train` writes, got another JSON file")
    return content


def plain(value: Any) -> Any:
    """A config as JSON."""
    if isinstance(value, Recipe):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
