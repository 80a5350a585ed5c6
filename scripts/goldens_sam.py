"""What segment-anything makes of prompts and grids, for tests/segment/test_automatic.py.

    python3.11 -m venv ORACLE
    ORACLE/bin/pip install torch==2.14.1 torchvision==0.29.1
    ORACLE/bin/pip install segment-anything opencv-python-headless jaxtyping
    ORACLE/bin/python scripts/goldens_sam.py

torchvision does not live with this project's PyTorch, so the venv is one of its own, outside the
repository. The model is of test size, its weights follow from their names.
"""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from golden_weights import seeded, seeded_pictures

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "sam.npz"

SIDE, GRID, CHANNELS = 80, 5, 32
"""As `SAMConfig.nano`."""

SHAPES = {"wide": (70, 101), "high": (150, 64), "large": (260, 390)}
"""Pictures: enlarged, and reduced."""

AUTOMATIC: dict[str, Any] = {
    "points_per_side": 5,
    "points_per_batch": 8,
    "pred_iou_thresh": -0.05,
    "stability_score_thresh": 0.4,
    "stability_score_offset": 0.05,
    "box_nms_thresh": 0.97,
    "crop_n_layers": 1,
    "crop_nms_thresh": 0.98,
    "crop_n_points_downscale_factor": 2,
}
"""So that random weights leave some masks."""

REGIONS = AUTOMATIC | {"min_mask_region_area": 30}


def picture(name: str) -> np.ndarray:
    """uint8 [H W 3]."""
    pixels = seeded_pictures(f"sam {name}", (1, *SHAPES[name], 3))[0]
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def build() -> Any:
    """segment-anything's network at the size of `SAMConfig.nano`."""
    torch, modeling = import_module("torch"), import_module("segment_anything.modeling")
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    encoder = modeling.ImageEncoderViT(
        img_size=SIDE,
        patch_size=16,
        embed_dim=24,
        depth=3,
        num_heads=2,
        mlp_ratio=4,
        out_chans=CHANNELS,
        qkv_bias=True,
        norm_layer=norm,
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=[1],
    )
    prompts = modeling.PromptEncoder(
        embed_dim=CHANNELS,
        image_embedding_size=(GRID, GRID),
        input_image_size=(SIDE, SIDE),
        mask_in_chans=8,
    )
    transformer = modeling.TwoWayTransformer(
        depth=2, embedding_dim=CHANNELS, mlp_dim=48, num_heads=2
    )
    decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=CHANNELS,
        iou_head_depth=3,
        iou_head_hidden_dim=CHANNELS,
    )
    sam = modeling.Sam(encoder, prompts, decoder).eval()
    state = {
        key: torch.from_numpy(seeded(key, tuple(tensor.shape)))
        for key, tensor in sam.state_dict().items()
    }
    sam.load_state_dict(state)
    return sam


def main() -> None:
    """Writes masks of prompts and of grids."""
    package, sam = import_module("segment_anything"), build()
    found: dict[str, Any] = {}
    for name, (height, width) in SHAPES.items():
        predictor = package.SamPredictor(sam)
        predictor.set_image(picture(name))
        points = np.array([[0.3 * width, 0.6 * height], [0.7 * width, 0.2 * height]])
        box = np.array([0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height])
        prompts = {
            "points": {"point_coords": points, "point_labels": np.array([1, 0])},
            "box": {"box": box, "multimask_output": False},
            "both": {"point_coords": points, "point_labels": np.array([1, 1]), "box": box},
        }
        for kind, prompt in prompts.items():
            masks, quality, logits = predictor.predict(**prompt)
            found[f"{name}/{kind}/masks"] = np.packbits(masks)
            found[f"{name}/{kind}/quality"] = quality
            found[f"{name}/{kind}/logits"] = logits[:, ::3, ::3]
        for kind, options in (("automatic", AUTOMATIC), ("regions", REGIONS)):
            generator = package.SamAutomaticMaskGenerator(sam, **options)
            records = generator.generate(picture(name))
            found[f"{name}/{kind}/masks"] = np.packbits([r["segmentation"] for r in records])
            for key in ("bbox", "predicted_iou", "stability_score", "crop_box", "point_coords"):
                found[f"{name}/{kind}/{key}"] = np.array([r[key] for r in records])
            print(name, kind, len(records))
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **found)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
