"""Writes tests/golden/inception.npz: what pytorch-fid's own network makes of random pictures.

torchvision does not live with this project's PyTorch, so this runs in a venv of its own, outside
the repository:

    python3.11 -m venv ORACLE
    ORACLE/bin/pip install torch==2.14.1 torchvision==0.29.1 pytorch-fid==0.3.0 jaxtyping
    ORACLE/bin/python scripts/goldens_inception.py

The network has its full size. Its weights follow from their names (`golden_weights.seeded`), so
that the test makes the same and the file holds pictures, names and features only.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from golden_weights import seeded

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "inception.npz"

GROUPS = {"small": (3, 70, 93), "large": (1, 310, 350)}
"""Pictures of one size, enlarged and reduced by the network: how many, height, width."""

SHOWN = np.array([*range(0, 299, 13), 297, 298])
"""Rows and columns of the resized pictures that are kept: both edges and every 13th."""


def pictures(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Waves under patches, in eight steps so that they pack small: uint8 [count height width 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    wave = rng.uniform(-0.4, 0.4, (2, count, 1, 1, 3))
    phase = wave[0] * y[..., None] + wave[1] * x[..., None] + rng.uniform(0, 6, (count, 1, 1, 3))
    patches = rng.uniform(-60, 60, (count, height // 16 + 1, width // 16 + 1, 3))
    patches = patches.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    values = np.clip(127 + 90 * np.sin(phase) + patches, 0, 255)
    return values.astype(np.uint8) // 32 * 36


def build() -> Any:
    """pytorch-fid's network, without its download; `names` gives the shapes of its tensors."""
    # Here, because the test imports this module and runs without PyTorch.
    torch = import_module("torch")
    theirs: Any = import_module("pytorch_fid.inception")
    names: dict[str, tuple[int, ...]] = {}
    plain = theirs._inception_v3

    def remembered(*args: Any, **kwargs: Any) -> Any:
        network = plain(*args, **kwargs)
        names.update({key: tuple(t.shape) for key, t in network.state_dict().items()})
        return network

    def weights(*_: Any, **__: Any) -> dict[str, Any]:
        tensors = {key: seeded(key, shape) for key, shape in names.items()}
        return {key: torch.from_numpy(np.asarray(tensor)) for key, tensor in tensors.items()}

    theirs._inception_v3, theirs.load_state_dict_from_url = remembered, weights
    network = theirs.InceptionV3().eval()
    network.names = names
    return network


def main() -> None:
    """Runs both groups through the network."""
    torch, network = import_module("torch"), build()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    names = network.names.items()
    found["names"] = np.array([f"{key} {','.join(map(str, s))}" for key, s in names])
    for seed, (group, size) in enumerate(GROUPS.items()):
        found[f"{group}_u8"] = pictures(*size, seed)
        pixels = torch.from_numpy(found[f"{group}_u8"]).permute(0, 3, 1, 2) / 255
        resized = torch.nn.functional.interpolate(pixels, (299, 299), mode="bilinear")
        kept = resized[:, :, SHOWN][..., SHOWN].permute(0, 2, 3, 1)
        with torch.no_grad():
            found[f"{group}_features"] = network(pixels)[0][:, :, 0, 0].numpy()
        found[f"{group}_resized"] = kept.numpy()
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN, **found)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
