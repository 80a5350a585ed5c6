"""A small library of packed drawings."""

import json
from pathlib import Path

import cv2
import numpy as np

SIDE = 48

KINDS = {
    "noto": ["cat", "dog", "sun", "moon", "tree", "ship"],
    "fluent": ["cat", "dog", "sun", "star"],
    "fxemoji": ["cat", "boat", "bee", "pear", "lamp"],
    "dicebear-avataaars": ["one"],
}
"""Source -> its subjects."""


def write_library(path: Path, subjects=None) -> Path:
    """Each subject is a disc with a block in it, two drawings each, on a palette of two colours."""
    random = np.random.default_rng(0)
    palettes, indices, lines, meta = [], [], [], []
    for source, names in (subjects or KINDS).items():
        for name in names:
            palette = np.zeros((64, 3), np.uint8)
            palette[1:3] = random.integers(40, 230, (2, 3))
            palettes.append(palette)
            entry = {"id": f"{source}/{name}", "src": source, "lic": "MIT", "n": 2}
            meta.append(entry | {"first": len(indices)})
            for _ in range(2):
                drawing, line = (
                    np.zeros((SIDE, SIDE), np.uint8),
                    np.full((SIDE, SIDE), 255, np.uint8),
                )
                radius = int(random.integers(14, 22))
                cv2.circle(drawing, (24, 24), radius, 1, -1)
                cv2.circle(line, (24, 24), radius, 0, 1)
                cv2.rectangle(drawing, (18, 20), (28, 30), 2, -1)
                cv2.rectangle(line, (18, 20), (28, 30), 0, 1)
                indices.append(drawing)
                lines.append(line)
    parts = {"palette": palettes, "idx": indices, "line": lines}
    np.savez(path, **{name: np.stack(rows) for name, rows in parts.items()}, meta=json.dumps(meta))
    return path
