"""segment-anything's side of bench_segment.py, in the environment that has it.

ORACLE/bin/python scripts/bench_segment_oracle.py PICTURE SETTINGS RESULT.json
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from golden_weights import seeded
from PIL import Image


def main(path: Path, settings: dict[str, Any], result: Path) -> None:
    """Segments the picture twice, and writes the boxes and both times."""
    torch, package = import_module("torch"), import_module("segment_anything")
    sam = package.sam_model_registry["vit_b"]().eval()
    drawn = {
        key: torch.from_numpy(seeded(key, tuple(tensor.shape)))
        for key, tensor in sam.state_dict().items()
    }
    sam.load_state_dict(drawn)
    generator = package.SamAutomaticMaskGenerator(sam, **settings)
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        records = generator.generate(picture)
        times.append(time.perf_counter() - start)
    boxes = sorted([int(side) for side in record["bbox"]] for record in records)
    result.write_text(json.dumps({"boxes": boxes, "first": times[0], "warm": times[1]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
