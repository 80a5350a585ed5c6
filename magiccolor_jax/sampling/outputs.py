"""Files that colouring leaves: PNGs that know how they were made, and one JSON manifest."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from magiccolor_jax.checkpoint import CONFIG_NAME
from magiccolor_jax.data.cases import case_files
from magiccolor_jax.data.pictures import BOMBS, DECODER_ERRORS, CaseError, write_png
from magiccolor_jax.files import atomic_file
from magiccolor_jax.tensorfile import TensorFile

METADATA_KEY = "magiccolor"
"""Name of the PNG text chunk that holds the settings as JSON."""

MANIFEST_INTERVAL = 30.0
"""Seconds between writes of the manifest while a job runs, at least."""

MANIFEST_SHARE = 0.01
"""Share of a job's time that such writes may take: with 100,000 cases one takes seconds."""

HASHED_VALUES = 256
"""Values of each tensor that identify a model."""


def hash_case(path: Path) -> str:
    """SHA-256 over the names and bytes of the files that a picture is made from.

    Raises:
        CaseError: the folder is not a case, or a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in case_files(path):
        name = os.fsencode(file.relative_to(path).as_posix())
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CaseError(
                file,
                "the files of a case can be read",
                expected="a picture",
                got=error.strerror or str(error),
                fix="check where the link leads, or the permissions; or remove the file",
            ) from error
        digest.update(b"%s\0%s" % (name, hashlib.sha256(content).digest()))
    return digest.hexdigest()


def hash_model(directory: Path) -> str:
    """Identifies a model by config.json and the beginning of every tensor.

    Training changes every tensor, and so few bytes are read at once, wherever the folder was
    copied or moved to.

    Raises:
        ValueError, OSError: a file of weights is damaged.
    """
    digest = hashlib.sha256((directory / CONFIG_NAME).read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        file = TensorFile(path)
        for key, spec in sorted(file.specs.items()):
            digest.update(f"{path.name} {key} {spec.shape} {spec.dtype}".encode())
            digest.update(file.mapped(key).reshape(-1)[:HASHED_VALUES].tobytes())
    return digest.hexdigest()


def write_picture(
    path: Path,
    picture: UInt8[np.ndarray, "H W *C"],
    made_by: dict[str, Any],
) -> None:
    """Writes a PNG atomically, with `made_by` in its metadata."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(METADATA_KEY, json.dumps(made_by, sort_keys=True))
    write_png(path, picture, info)


def read_made_by(path: Path) -> dict[str, Any] | None:
    """The settings that a picture was made with; None where it is none of ours or damaged."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            made_by = json.loads(image.info[METADATA_KEY])
            image.verify()  # all checksums to the end of the file, and no pixel decoded
    except (*DECODER_ERRORS, *BOMBS):
        return None
    return made_by if isinstance(made_by, dict) else None


def is_foreign(path: Path) -> bool:
    """Whether something stands there that we did not make: any whole picture or folder but ours."""
    if not path.is_file():
        return path.exists()
    try:
        with Image.open(path) as image:
            ours = METADATA_KEY in image.info
            image.verify()
    except BOMBS:
        return True
    except DECODER_ERRORS:
        return False  # the remains of a picture: it is made again
    return not ours


class Manifest:
    """What became of every case, written atomically and now and then; thread-safe.

    Pictures of earlier runs into the same folder stay listed, as `earlier`: how they were made is
    in their own metadata.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        """
        Args:
            about: settings, model and device of the job.
        """
        self._path, self._about = path, about
        self._before = _cases_before(path)
        self._cases: dict[str, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._due = time.monotonic() + MANIFEST_INTERVAL

    def add(self, name: str, status: str, **details: Any) -> None:
        """Notes a case, once; status is `colored`, `skipped` or `failed`."""
        with self._lock:
            before = self._before.pop(name, {})
            kept = {"seconds": before["seconds"]} if before and status == "skipped" else {}
            self._cases[name] = {"status": status, **kept, **details}
            self._counts[status] += 1
            if time.monotonic() > self._due:
                self.write()

    def count(self, status: str) -> int:
        """How many cases ended so."""
        return self._counts[status]

    def write(self) -> None:
        """Writes the file."""
        with self._lock:
            started = time.monotonic()
            earlier = {name: {**old, "status": "earlier"} for name, old in self._before.items()}
            content = {**self._about, "cases": dict(sorted((earlier | self._cases).items()))}
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            with atomic_file(self._path) as temporary:
                # A name that is no UTF-8 has lone surrogates, which JSON writes just so: \udcXX.
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            now = time.monotonic()
            self._due = now + max(MANIFEST_INTERVAL, (now - started) / MANIFEST_SHARE)


def _cases_before(path: Path) -> dict[str, dict[str, Any]]:
    """What an earlier run has noted of pictures that are still there; nothing if it is damaged."""
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return {
            name: {"seconds": case.get("seconds"), **case}
            for name, case in cases.items()
            if "output" in case and (path.parent / case["output"]).is_file()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
