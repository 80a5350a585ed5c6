"""LPIPS by its authors' package, for tests/encoders/test_lpips.py.

    python3.11 -m venv ORACLE
    ORACLE/bin/pip install torch==2.14.1 torchvision==0.29.1 lpips==0.1.4 jaxtyping
    ORACLE/bin/python scripts/goldens_lpips.py

torchvision does not live with this project's PyTorch, so the venv is one of its own, outside the
repository.
"""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
from golden_weights import seeded, seeded_pictures

OUT = Path(__file__).parents[1] / "tests" / "golden" / "lpips.npz"

SHAPES = {"square": (2, 64, 64, 3), "odd": (3, 67, 93, 3)}
"""Name -> shape of a batch of pictures."""


def main() -> None:
    """Writes the distances of both backbones."""
    lpips, torch = import_module("lpips"), import_module("torch")
    found = {f"shape/{name}": np.array(shape) for name, shape in SHAPES.items()}
    for backbone in ("alex", "vgg"):
        model = lpips.LPIPS(net=backbone, pretrained=False, pnet_rand=True, verbose=False).eval()
        drawn = {
            key: torch.from_numpy(seeded(torchvisions(key), tuple(tensor.shape)))
            for key, tensor in model.state_dict().items()
            if not key.startswith(("scaling_layer", "lins"))
        }
        model.load_state_dict(drawn, strict=False)
        for name, shape in SHAPES.items():
            pictures, truths = (
                torch.from_numpy(seeded_pictures(f"{name} {side}", shape)).permute(0, 3, 1, 2)
                for side in ("pictures", "truths")
            )
            with torch.inference_mode():
                distance = model(pictures, truths, normalize=True)
            found[f"{backbone}/{name}"] = distance.numpy().reshape(-1)
    OUT.parent.mkdir(exist_ok=True)
    np.savez(OUT, allow_pickle=False, **found)
    print({key: value.tolist() for key, value in found.items()})


def torchvisions(key: str) -> str:
    """A backbone's tensor by its own name; the authors cut it into slices."""
    return re.sub(r"^net\.slice\d\.", "features.", key)


if __name__ == "__main__":
    main()
