"""What training samples are made from: coloured pictures with the regions of their instances."""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


class View(NamedTuple):
    """Another picture in which an instance is seen."""

    picture: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    """0..255: which part of the picture is the instance."""


class Outline(NamedTuple):
    """What planning batches needs to know of a scene; read without decoding a picture."""

    height: int
    """Of the target, in pixels."""
    width: int
    """Of the target, in pixels."""
    instances: int
    """Number of instances, at least 1."""


class Scene(NamedTuple):
    """One coloured picture, as stored: nothing resized, nothing drawn."""

    name: str
    path: Path
    """Where it came from, for messages."""
    target: UInt8[np.ndarray, "H W 3"]
    """The colours to learn; transparency is laid on white."""
    lines: UInt8[np.ndarray, "H W 3"] | None
    """A stored line layer or sketch; None: an extractor has to make one."""
    masks: tuple[UInt8[np.ndarray, "H W"], ...]
    """Where each instance stands, 0..255; the higher id wins. At least one; a source without masks
    gives one that marks everything."""
    views: tuple[tuple[View, ...], ...]
    """For each instance other pictures of it (another frame, a reference); often none."""


@runtime_checkable
class Source(Protocol):
    """Scenes by number. Reading one neither draws anything nor changes anything."""

    def __len__(self) -> int: ...

    def outline(self, index: int) -> Outline:
        """Size and number of instances."""
        ...

    def fingerprint(self) -> str:
        """Tells sources apart that hold other scenes, or the same in another order; wherever their
        folder stands."""
        ...

    def __getitem__(self, index: int) -> Scene:
        """Reads and checks a scene.

        Raises:
            CaseError: where, which rule, expected, got, and what to do.
        """
        ...
