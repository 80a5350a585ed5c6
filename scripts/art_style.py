"""What paints a shape of an SVG: its attributes, the style sheet's rules and its style, resolved.

As much of the standard as drawings use: selectors of one tag, class or id, inherited properties,
gradients' colours, filters that blur.
"""

import re
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from PIL import ImageColor

NAMESPACE = "http://www.w3.org/2000/svg"
LINKS = ("href", "{http://www.w3.org/1999/xlink}href")

INHERITED = (
    "fill",
    "stroke",
    "stroke-width",
    "fill-opacity",
    "stroke-opacity",
    "visibility",
    "color",
)
OWN = ("opacity", "display", "filter", "mix-blend-mode")

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
UNITS = {"pt": 4 / 3, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "pc": 16.0}
"""In pixels of CSS."""

DARK, GREYISH = 0.22, 70
"""Luma in 0..1 below which, and range of the channels in 0..255 under which, a colour is ink."""

UNKNOWN = (200, 200, 200)
"""What a paint that has no colour of its own, such as a pattern, counts as."""

FADED = 0.35
"""Least opacity of a gradient's stop; others are shading that ends nowhere."""


class Gradient(NamedTuple):
    """What its stops say."""

    colors: list[tuple[int, int, int]]
    opacities: list[float]
    parent: str
    """Id of the gradient whose stops it shares, or nothing."""


class Sheet:
    """What a document says once for all of its shapes."""

    def __init__(self, root: Element):
        self.rules: dict[str, dict[str, str]] = {}
        self.gradients: dict[str, Gradient] = {}
        self.blurs: set[str] = set()
        """Ids of the filters that end in a blur: what they paint has no edge."""
        for element in root.iter():
            name, key = local(element), element.get("id", "")
            if name == "style":
                self._add_rules(element.text or "")
            elif name in ("linearGradient", "radialGradient"):
                self.gradients[key] = _gradient(element)
            elif name == "filter" and len(element) and local(element[-1]) == "feGaussianBlur":
                self.blurs.add(key)

    def _add_rules(self, text: str) -> None:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", text):
            for selector in selectors.split(","):
                self.rules.setdefault(selector.strip(), {}).update(declarations(body))

    def style(self, element: Element) -> dict[str, str]:
        """What an element says itself of how it is painted."""
        found = {key: value for key in (*INHERITED, *OWN) if (value := element.get(key))}
        name = local(element)
        classes = element.get("class", "").split()
        selectors = ["*", name, *(f".{c}" for c in classes), *(f"{name}.{c}" for c in classes)]
        for selector in (*selectors, f"#{element.get('id', '')}"):
            found.update(self.rules.get(selector, {}))
        return found | declarations(element.get("style", ""))

    def blurred(self, style: dict[str, str]) -> bool:
        """Whether what it paints is mixed with what lies below, or has no edge."""
        return style.get("mix-blend-mode", "normal") != "normal" or (
            reference(style.get("filter", "")) in self.blurs
        )

    def color(self, paint: str, style: dict[str, str]) -> tuple[int, int, int] | None:
        """The colour of a paint, a gradient's mean; None: it paints nothing, or fades away."""
        if paint in ("none", "transparent"):
            return None
        key = reference(paint)
        if not key:
            return parse_color(style.get("color", "black") if paint == "currentColor" else paint)
        seen = set()
        while key in self.gradients and key not in seen:
            seen.add(key)
            colors, opacities, parent = self.gradients[key]
            if colors:
                mean = np.mean(colors, axis=0).astype(int).tolist()
                return None if min(opacities) < FADED else (mean[0], mean[1], mean[2])
            key = parent
        return UNKNOWN


def local(element: Element) -> str:
    """Its name without the namespace; nothing for comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def declarations(text: str) -> dict[str, str]:
    """Property -> value, of a style attribute or a rule's body."""
    pairs = (part.split(":", 1) for part in text.replace("!important", "").split(";"))
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def reference(value: str) -> str:
    """The id in `url(#id)`, or nothing."""
    found = re.search(r"url\(\s*['\"]?#([^'\")]+)", value)
    return found[1].strip() if found else ""


def link(element: Element) -> str:
    """The id that a use or a gradient refers to, or nothing."""
    target = next((value for key in LINKS if (value := element.get(key))), "")
    return target[1:] if target.startswith("#") else ""


def length(text: str | None, default: float) -> float:
    """In pixels; `default` where it is none, or a share of something."""
    found = re.fullmatch(rf"\s*({NUMBER})\s*([a-zA-Z]*)\s*", text or "")
    return float(found[1]) * UNITS.get(found[2], 1.0) if found else default


def opacity(text: str | None) -> float:
    """0..1; 1 where nothing is said."""
    found = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", text or "")
    return min(max(float(found[1]) * (0.01 if found[2] else 1.0), 0.0), 1.0) if found else 1.0


def parse_color(text: str) -> tuple[int, int, int]:
    """Channels, 0..255, of a colour as CSS writes it."""
    try:
        found = ImageColor.getrgb(re.sub(r"\s+", "", text.partition("icc-color")[0]))
    except ValueError:
        return UNKNOWN
    return found[:3]


def is_ink(color: tuple[int, int, int]) -> bool:
    """Whether it is so dark, and so grey, that a pen draws it black."""
    luma = float(np.dot((0.299, 0.587, 0.114), color)) / 255
    return luma < DARK and max(color) - min(color) < GREYISH


def _gradient(element: Element) -> Gradient:
    colors, opacities = [], []
    for stop in element:
        if local(stop) == "stop":
            style = {k: v for k in ("stop-color", "stop-opacity") if (v := stop.get(k))}
            style |= declarations(stop.get("style", ""))
            colors.append(parse_color(style.get("stop-color", "black")))
            opacities.append(opacity(style.get("stop-opacity")))
    return Gradient(colors, opacities, link(element))
