"""The reference's side of bench_metrics.py, in the environment that has lpips and pytorch-fid.

ORACLE/bin/python scripts/bench_metrics_oracle.py NAME PICTURES.npz ROUNDS
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from golden_weights import seeded


def main(name: str, path: Path, rounds: int) -> None:
    """Writes what it found and how long it took to found.npz beside the pictures."""
    torch = import_module("torch")
    with np.load(path) as stored:
        made, truth = (torch.from_numpy(stored[key]).permute(0, 3, 1, 2) for key in stored.files)
    network = inception() if name == "Inception" else lpips(name.split("(")[1][:-1])
    call: Callable[[], Any] = lambda: network(made, truth)  # noqa: E731
    times = []
    with torch.inference_mode():
        found = call()
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    np.savez(path.with_name("found.npz"), found=found.numpy(), seconds=median(times))


def lpips(backbone: str) -> Callable[[Any, Any], Any]:
    """The authors' network under the seeded weights."""
    torch, package = import_module("torch"), import_module("lpips")
    theirs = import_module("goldens_lpips").torchvisions
    model = package.LPIPS(net=backbone, pretrained=False, pnet_rand=True, verbose=False).eval()
    drawn = {
        key: torch.from_numpy(seeded(theirs(key), tuple(tensor.shape)))
        for key, tensor in model.state_dict().items()
        if not key.startswith(("scaling_layer", "lins"))
    }
    model.load_state_dict(drawn, strict=False)
    return lambda made, truth: model(made, truth, normalize=True).reshape(-1)


def inception() -> Callable[[Any, Any], Any]:
    """pytorch-fid's network under the seeded weights."""
    network = import_module("goldens_inception").build()
    return lambda made, _: network(made)[0][:, :, 0, 0]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
