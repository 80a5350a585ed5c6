"""Prompts of `magiccolor segment`: read, checked, and brought to one number of points."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


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
        ValueError: it is no such file, or cannot be read; the entry is named.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"{path}: prompts can be read: expected a JSON file, got {error.strerror or error}; "
            "check the path of --prompts and its permissions"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, picture -> list of prompts")
    found = {}
    for name, row in content.items():
        if not isinstance(row, list) or not row:
            raise ValueError(
                f"{path}: {name}: expected a list of prompts, at least one, got {row!r}"
            )
        entries = enumerate(row, 1)
        found[name] = [_prompt(entry, f"{path}: {name}, prompt {n}") for n, entry in entries]
    return found


def _prompt(entry: Any, where: str) -> Prompt:
    """One entry; raises ValueError where it is none."""
    if not isinstance(entry, dict) or not set(entry) <= {"points", "labels", "box"} or not entry:
        raise ValueError(f"{where}: expected some of points, labels and box, got {entry!r}")
    points, box = entry.get("points", []), entry.get("box")
    right = isinstance(points, list) and all(_is_numbers(point, 2) for point in points)
    labels = entry.get("labels", [1] * len(points) if right else [])
    right = (
        right
        and isinstance(labels, list)
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
        if prompt.box and not (prompt.box[0] < prompt.box[2] and prompt.box[1] < prompt.box[3]):
            raise ValueError(
                f"a box is left, top, right, bottom: expected left < right and top < bottom, got "
                f"{prompt.box}"
            )


def alike(prompts: Sequence[Prompt]) -> list[tuple[list[int], Asked]]:
    """Prompts of one kind together: their numbers, and all of them as arrays.

    A point that only fills up is not none to SAM: what a prompt gets must not depend on others.
    """
    kinds: dict[tuple[bool, int], list[int]] = {}
    for number, prompt in enumerate(prompts):
        kinds.setdefault((prompt.box is not None, len(prompt.points)), []).append(number)
    return [(numbers, _asked([prompts[i] for i in numbers])) for numbers in kinds.values()]


def _asked(prompts: Sequence[Prompt]) -> Asked:
    """All with as many points, all with a box or none."""
    points = np.array([prompt.points for prompt in prompts], float)
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    pointed = points.size > 0
    return Asked(
        points if pointed else None,
        np.array([prompt.labels for prompt in prompts]) if pointed else None,
        np.array(boxes) if boxes else None,
    )
