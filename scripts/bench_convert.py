"""Release -> JAX -> release: time against copying, memory, disk, and whether every tensor returns.

    python scripts/bench_convert.py --size nano
    python scripts/bench_convert.py --size full --release RELEASE --work /data   # needs 60 GB

Conversion and `cp -r` alternate; the ratio is the median of the ratios of each pair. Both start
from the same state: the other's output is gone, and the source has just been read, so that the page
cache holds as much of it as it can.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import tyro
from report import ROOT, run_python, show, write_json

from converters.containers import open_weights
from converters.manifest import read_manifest
from magiccolor_jax.files import sha256_of


@dataclass(frozen=True, kw_only=True)
class Args:
    """Conversion timings."""

    size: Literal["nano", "full"] = "nano"
    """Of the stand-in release."""
    release: Path | None = None
    """The release's folder; default: a stand-in with random weights is made in `work`."""
    work: Path | None = None
    """Folder for everything that is written; default a temporary one."""
    rounds: int = 3
    """Pairs of conversion and copy, per direction."""
    json: Path | None = None
    """Where the rows go as JSON."""


def main(args: Args) -> int:
    """Prints both tables; the exit code is 1 if a tensor did not come back as it was."""
    with tempfile.TemporaryDirectory(dir=args.work) as temporary:
        work = Path(temporary)
        release = args.release or work / "release"
        if args.release is None:
            run_python("scripts/make_release_checkpoint.py", "--size", args.size, "--out", release)
        release = release.absolute()
        rows = [
            direction("to JAX", release, work / "model", work, args.rounds),
            direction("back", work / "model", work / "returned", work, args.rounds),
        ]
        files = compare(release, work / "model", work / "returned")
    show("conversion against cp -r (medians)", rows)
    show("tensors that came back: names, types, shapes and sha256 of the bytes", files)
    write_json(args.json, {"directions": rows, "files": files})
    return 0 if all(row["equal"] for row in files) else 1


def direction(name: str, source: Path, output: Path, work: Path, rounds: int) -> dict[str, Any]:
    """One direction, timed; leaves `output` behind."""
    converting, copying, peaks, disks = [], [], [], []
    copy = work / "copy"
    for _ in range(rounds):
        shutil.rmtree(output, ignore_errors=True)
        _read(source)
        copying.append(_timed(["cp", "-r", source, copy])[0])
        shutil.rmtree(copy)
        _read(source)
        with DiskPeak(work) as disk:
            seconds, peak = _timed([sys.executable, "-m", "converters", source, output])
        converting.append(seconds)
        peaks.append(peak)
        disks.append(disk.gigabytes)
    return {
        "direction": name,
        "convert s": median(converting),
        "cp s": median(copying),
        "ratio": median(a / b for a, b in zip(converting, copying, strict=True)),
        "peak RSS GB": max(peaks),
        "largest file GB": max(p.stat().st_size for p in source.rglob("*") if p.is_file()) / 1e9,
        "peak disk GB": max(disks),
        "output GB": _size(output) / 1e9,
    }


def _read(folder: Path) -> None:
    """Brings a folder's files into the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            sha256_of(path)


def _timed(command: list[Any]) -> tuple[float, float]:
    """Seconds and peak resident gigabytes of a process; its writes have reached the disk."""
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command}: exit code {process.returncode}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


class DiskPeak:
    """How much a folder grows at most while a block runs, in gigabytes."""

    def __init__(self, folder: Path):
        self._folder, self._done = folder, threading.Event()
        self._before, self._peak = 0, 0
        self._watcher = threading.Thread(target=self._watch)

    @property
    def gigabytes(self) -> float:
        """Growth at the peak."""
        return (self._peak - self._before) / 1e9

    def __enter__(self) -> "DiskPeak":
        self._before = self._peak = _size(self._folder)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self._peak = max(self._peak, _size(self._folder))
        self._peak = max(self._peak, _size(self._folder))


def _size(folder: Path) -> int:
    """Bytes on disk; a file that vanishes while it is looked at counts as none."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def compare(release: Path, model: Path, returned: Path) -> list[dict[str, Any]]:
    """Tensor by tensor, one row per file of weights."""
    manifest, rows = read_manifest(model), []
    if manifest is None:
        raise ValueError(f"{model}: a conversion leaves a manifest.json, and there is none")
    for record in (file for source in manifest.sources for file in source.files):
        before, after = (fingerprints(folder / record.path) for folder in (release, returned))
        same = sum(before[key] == after.get(key) for key in before)
        rows.append(
            {
                "file": record.path,
                "tensors": len(before),
                "same": same,
                "equal": same == len(before) == len(after) and list(before) == list(after),
            }
        )
    return rows


def fingerprints(path: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Key -> type, shape and sha256 of the bytes, in the file's order."""
    with open_weights(path) as file:
        return {
            key: (str(spec.dtype), spec.shape, hashlib.sha256(file.read(key).tobytes()).hexdigest())
            for key, spec in file.specs.items()
        }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
