"""Prompts of `magiccolor segment`: read, checked, and brought to one number of points."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

NO_POINT = -1


class Prompt(NamedTuple):
    """What tells one instance."""

    points: tuple[tuple[float, float], ...] = ()
    """(x, y) in pixels of the picture."""
    labels: tuple[int, ...] = ()
    """1: inside, 0: outside."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom."""


class Asked(NamedTuple):
    """Prompts of one kind, as `Predictor.predict` takes them."""

    points: Float[np.ndarray, "N P 2"] | None
    labels: Int[np.ndarray, "N P"] | None
    boxes: Float[np.ndarray, "N 4"] | None


def from_words(points: Sequence[str], boxes: Sequence[str]) -> list[Prompt]:
    """Prompts of the command line, each an instance.

    Raises:
        ValueError: words that are no numbers, or not so many.
    """
    found = [Prompt(points=(_numbers(p, 2, "point"),), labels=(1,)) for p in points]
    return found + [Prompt(box=_numbers(b, 4, "box")) for b in boxes]


def _numbers(text: str, count: int, what: str) -> Any:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != count:
        form = "X,Y" if count == 2 else "LEFT,TOP,RIGHT,BOTTOM"
        raise ValueError(f"a {what} is {form}, numbers without spaces: got {text!r}")
    return found


def read_prompts(path: Path) -> dict[str, list[Prompt]]:
    """Picture's name -> prompts.

    Raises:
        ValueError: it is no such file; the entry is named.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, picture -> list of prompts")
    return {
        name: [_prompt(entry, f"{path}: {name}, prompt {index}") for index, entry in enumerate(row)]
        for name, row in content.items()
    }


def _prompt(entry: Any, where: str) -> Prompt:
    """One entry; raises ValueError where it is none."""
    if not isinstance(entry, dict) or not set(entry) <= {"points", "labels", "box"} or not entry:
        raise ValueError(f"{where}: expected some of points, labels and box, got {entry!r}")
    points, box = entry.get("points", []), entry.get("box")
    labels = entry.get("labels", [1] * len(points))
    right = (
        all(_is_numbers(point, 2) for point in points)
        and len(labels) == len(points)
        and all(label in (0, 1) for label in labels)
        and (box is None or _is_numbers(box, 4))
        and (points or box is not None)
    )
    if not right:
        raise ValueError(
            f"{where}: expected points [[x, y], ..], as many labels of 0 and 1, box [left, top, "
            f"right, bottom], got {entry!r}"
        )
    places = tuple((float(x), float(y)) for x, y in points)
    if box is None:
        return Prompt(places, tuple(labels))
    left, top, right, bottom = map(float, box)
    return Prompt(places, tuple(labels), (left, top, right, bottom))


def _is_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    )


def check_inside(prompts: Sequence[Prompt], shape: tuple[int, int]) -> None:
    """Raises ValueError where a prompt lies outside of its picture.

    Args:
        shape: height and width.
    """
    height, width = shape
    for prompt in prompts:
        corners = [prompt.box[:2], prompt.box[2:]] if prompt.box else []
        for x, y in (*prompt.points, *corners):
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(
                    f"prompts lie on the picture: expected 0..{width}, 0..{height}, got {x}, {y}"
                )


def alike(prompts: Sequence[Prompt]) -> list[tuple[list[int], Asked]]:
    """Prompts with a box, and without one: their numbers, and both kinds as arrays."""
    found = []
    for boxed in (False, True):
        numbers = [i for i, prompt in enumerate(prompts) if (prompt.box is not None) == boxed]
        if numbers:
            found.append((numbers, _asked([prompts[i] for i in numbers])))
    return found


def _asked(prompts: Sequence[Prompt]) -> Asked:
    """All with as many points, filled up by points that are none."""
    most = max(len(prompt.points) for prompt in prompts)
    points = np.zeros((len(prompts), most, 2))
    labels = np.full((len(prompts), most), NO_POINT)
    for index, prompt in enumerate(prompts):
        points[index, : len(prompt.points)] = np.reshape(prompt.points, (-1, 2))
        labels[index, : len(prompt.points)] = prompt.labels
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    return Asked(
        points if most else None, labels if most else None, np.array(boxes) if boxes else None
    )
