"""The choices in which the paper, common sense and the released code differ.

Two presets: `Recipe.paper()` is the default, `Recipe.release()` reproduces the published weights'
behaviour exactly. Each field is read in exactly one file, named in its docstring.
"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

UncondDrop = Literal["bank", "context", "instances"]
Finish = Literal["network", "lines", "lines_everywhere"]

MOST_PIXELS = 64
"""Of `finish_reach`: a quarter of a page of 256 px."""

AFTERWARDS = ("finish", "finish_reach")
"""Fields about what becomes of a picture that is made: no training sees them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a case becomes conditions and a latent becomes a picture; defaults are the paper's."""

    context: Literal["clip", "dinov2"] = "clip"
    """Cross-attention context: CLIP embedding of the canvas (one token), or every valid
    instance's DINOv2 tokens through a small MLP. Read in conditioning/assemble.py."""
    reference_bank: bool = True
    """Reference UNet features in the denoiser's self-attention.
    Read in conditioning/assemble.py."""
    masks_on: Literal["sketch", "canvas"] = "sketch"
    """Where the instance map comes from: sketch masks, or the crops' rectangles on the canvas
    (what the release does at inference). Read in data/batches.py."""
    mask_threshold: Literal[127, 0] = 127
    """A mask pixel counts when its value is above this. Read in data/transforms.py."""
    roi: Literal["mask_box", "whole"] = "mask_box"
    """Which part of a reference's token grid fills the instance's box. Read in data/batches.py."""
    token_drop: float = 0.10
    """Training only: share of an instance's tokens replaced by its global embedding. Read in
    conditioning/assemble.py."""
    grid_order: Literal["xy", "yx"] = "xy"
    """`yx` pastes the token grid transposed (release.md §4). Read in conditioning/instances.py."""
    box_end: Literal["inclusive", "exclusive"] = "inclusive"
    """`exclusive` loses a box's last row and column. Read in conditioning/instances.py."""
    uncond_drops: tuple[UncondDrop, ...] = ("bank", "context", "instances")
    """What the unconditional half of guidance does not see. Read in conditioning/assemble.py."""
    color_matching: Literal["off", "fixed", "release"] = "off"
    """Feature replacement in the denoiser (release.md §5). Read in conditioning/assemble.py."""
    canvas_fit: Literal["all", "release"] = "all"
    """`all`: the largest common crop side at which every crop fits; `release`: 256 px up to five
    references, else 150 px, and what finds no place is left out. Read in data/canvas.py."""
    page_fit: Literal["aspect", "squeeze512"] = "aspect"
    """`aspect`: fit into a size bucket and pad white; `squeeze512`: stretch page and references to
    the model's square. Read in data/transforms.py."""
    canvas_latent: Literal["mean", "sample"] = "mean"
    """Posterior mean or a sample of the canvas latent. Read in conditioning/assemble.py."""
    dino_weights: Literal["float32", "float16_rounded"] = "float32"
    """Rounding of DINOv2's weights at load. Read in sampling/pretrained.py."""
    bank_dtype: Literal["compute", "float16"] = "compute"
    """Rounding of the bank when it is handed over. Read in conditioning/assemble.py."""
    crop_stretch: bool = False
    """Min-max stretch of each crop to 0..255. Read in data/canvas.py."""
    mirror_canvas: float = 0.0
    """Probability that the canvas is mirrored. Read in data/canvas.py."""
    sketch_polarity: Literal["black_on_white", "as_is"] = "black_on_white"
    """`black_on_white` brings every sketch to one form: dark lines of one width on flat white.
    Read in data/sketches.py."""
    quantise: Literal["round", "truncate"] = "round"
    """How [-1, 1] becomes 0..255. Read in sampling/colorizer.py."""
    finish: Finish = "network"
    """`network`: its page, resized. `lines`: its colours under the sketch's own lines, and what no
    mask marks as it was; `lines_everywhere` colours that too. Read in sampling/colorizer.py."""
    finish_reach: int = 2
    """How far colours are evened out between lines, in pixels of the network's page: as small as
    what the network gets right. Read in sampling/finishing.py."""

    def __post_init__(self):
        hints = typing.get_type_hints(Recipe)
        for field in dataclasses.fields(self):
            _check_choice(field.name, getattr(self, field.name), hints[field.name])
        if self.masks_on == "canvas" and self.page_fit != "squeeze512":
            raise ValueError(
                "recipe: masks_on='canvas' fills the canvas' rectangles on the page, so the page "
                f"must be the canvas' square: expected page_fit='squeeze512', got {self.page_fit!r}"
            )

    @classmethod
    def paper(cls) -> "Recipe":
        """The paper's method, with the release's slips mended."""
        return cls()

    @classmethod
    def release(cls) -> "Recipe":
        """The published inference code, slips included (release.md §2-5)."""
        return cls(
            masks_on="canvas",
            mask_threshold=0,
            roi="whole",
            token_drop=0.0,
            grid_order="yx",
            box_end="exclusive",
            uncond_drops=("bank", "context"),
            color_matching="release",
            canvas_fit="release",
            page_fit="squeeze512",
            canvas_latent="sample",
            dino_weights="float16_rounded",
            bank_dtype="float16",
            crop_stretch=True,
            mirror_canvas=0.1,
            sketch_polarity="as_is",
            quantise="truncate",
        )

    @classmethod
    def from_json(cls, value: str | dict[str, Any]) -> "Recipe":
        """Reads a preset's name or a mapping of fields, as config.json and `--recipe` hold them.

        Raises:
            ValueError: the name or a field is unknown, or a value is not among its choices.
        """
        presets = {"paper": cls.paper, "release": cls.release}
        if isinstance(value, str):
            if value not in presets:
                raise ValueError(f"recipe: expected one of {sorted(presets)}, got {value!r}")
            return presets[value]()
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(value) - known):
            raise ValueError(f"recipe: unknown fields {unknown}; known are {sorted(known)}")
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**typing.cast(dict[str, Any], fields))

    def of_training(self) -> str:
        """The fields that a training sees, as text: what becomes of its pictures is not among
        them."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in AFTERWARDS}
        return f"Recipe({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    def to_json(self) -> str | dict[str, Any]:
        """The preset's name where the recipe is one, else all fields."""
        for name, preset in (("paper", Recipe.paper()), ("release", Recipe.release())):
            if self == preset:
                return name
        return dataclasses.asdict(self)


def _check_choice(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError when `value` is not what the field's type allows."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        for item in value:
            _check_choice(name, item, typing.get_args(hint)[0])
    elif origin is Literal and value not in typing.get_args(hint):
        choices = typing.get_args(hint)
        raise ValueError(f"recipe: {name} must be one of {choices}, got {value!r}")
    elif hint is float and (type(value) not in (int, float) or not 0.0 <= value <= 1.0):
        raise ValueError(f"recipe: {name} is a share and must lie in [0, 1], got {value!r}")
    elif hint is int and (type(value) is not int or not 1 <= value <= MOST_PIXELS):
        raise ValueError(
            f"recipe: {name} must be a whole number of pixels, 1 to {MOST_PIXELS}, got {value!r}"
        )
