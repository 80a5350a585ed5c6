"""Reads keys/release.txt: literal names and shapes of the downloads' tensors (release.md §1)."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magiccolor_jax.tensorfile import TensorSpec

KEYS = Path(__file__).parent / "keys" / "release.txt"
DTYPES = {"int64": np.dtype(np.int64)}


class _Section(NamedTuple):
    parameters: list[str]
    lines: list[list[str]]


def expected_tensors(section: str, sizes: Mapping[str, int]) -> dict[str, TensorSpec]:
    """Key -> type and shape of every tensor of one file.

    Args:
        section: name in keys/release.txt, e.g. `unet`.
        sizes: value of each name that the section's dimensions use.

    Raises:
        KeyError: the section, or a size that it needs, is missing.
    """
    return dict(_expand(section, "", sizes))


def _expand(name: str, prefix: str, sizes: Mapping[str, int]) -> Iterator[tuple[str, TensorSpec]]:
    for key, *words in _sections()[name].lines:
        if len(words) > 1 and words[-2] == "if":
            left, right = (_evaluate(side, sizes) for side in words[-1].split("!="))
            words = words[:-2]
            if left == right:
                continue
        for full in _ranges(prefix + key, sizes):
            if words and words[0].startswith("@"):
                called = words[0][1:]
                values = [_evaluate(word, sizes) for word in words[1:]]
                arguments = zip(_sections()[called].parameters, values, strict=True)
                below = prefix if key == "." else f"{full}."
                yield from _expand(called, below, {**sizes, **dict(arguments)})
            else:
                dtype = DTYPES.get(words[-1]) if words else None
                shape = tuple(_evaluate(word, sizes) for word in (words[:-1] if dtype else words))
                yield full, TensorSpec(dtype or np.dtype(np.float32), shape)


def _ranges(key: str, sizes: Mapping[str, int]) -> list[str]:
    """A key with `{a:b}` as one key per number."""
    match = re.search(r"\{(.+?):(.+?)\}", key)
    if not match:
        return [key]
    first, end = (_evaluate(match[i], sizes) for i in (1, 2))
    return [f"{key[: match.start()]}{i}{key[match.end() :]}" for i in range(first, end)]


def _evaluate(expression: str, sizes: Mapping[str, int]) -> int:
    """`2*a+b` under `sizes`."""
    return sum(
        prod(int(factor) if factor.isdigit() else sizes[factor] for factor in term.split("*"))
        for term in expression.split("+")
    )


@cache
def _sections() -> dict[str, _Section]:
    sections = {}
    for line in KEYS.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words and line.startswith("["):
            name, *parameters = line.strip("[]").split()
            sections[name] = section = _Section(parameters, [])
        elif words:
            section.lines.append(words)
    return sections
