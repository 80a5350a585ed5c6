"""DINOv2 features of pictures seen before: a character that returns on every page costs nothing."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

Features = tuple[Float[np.ndarray, " C"], Float[np.ndarray, "G G C"]]
Encode = Callable[
    [Float[np.ndarray, "n R R 3"]],
    tuple[Float[np.ndarray, "n C"], Float[np.ndarray, "n G G C"]],
]

LARGEST_LAUNCH = 8
"""Pictures encoded at once, per device; smaller launches have a power of two."""


class TokenCache:
    """Least-recently-used features by the SHA-256 of the network's input."""

    def __init__(self, encode: Encode, *, devices: int, capacity: int = 1 << 29):
        """
        Args:
            encode: features of n pictures, n a multiple of `devices`.
            capacity: bytes; a ViT-L reference takes 5.3 MB.
        """
        self._encode, self._devices, self._capacity = encode, devices, capacity
        self._entries: OrderedDict[str, Features] = OrderedDict()
        self._bytes = 0
        self.encoded = 0
        """How many pictures had to be encoded so far."""

    def features(self, pictures: Sequence[Float[np.ndarray, "R R 3"]]) -> list[Features]:
        """Features of each picture; what is new is encoded in as few launches as possible."""
        keys = [hashlib.sha256(np.ascontiguousarray(p).data).hexdigest() for p in pictures]
        found = {key: self._entries[key] for key in keys if key in self._entries}
        new = {k: p for k, p in zip(keys, pictures, strict=True) if k not in found}
        found |= self._encode_all(new)
        for key in dict.fromkeys(keys):
            self._remember(key, found[key])
        return [found[key] for key in keys]

    def _encode_all(self, new: dict[str, np.ndarray]) -> dict[str, Features]:
        keys, found = list(new), {}
        for start in range(0, len(keys), LARGEST_LAUNCH * self._devices):
            chunk = keys[start : start + LARGEST_LAUNCH * self._devices]
            size = launch_size(len(chunk), self._devices)
            pixels = np.stack([new[key] for key in chunk])
            padding = np.zeros((size - len(chunk), *pixels.shape[1:]), pixels.dtype)
            cls, patches = self._encode(np.concatenate([pixels, padding]))
            # Copies: a slice would keep its whole launch alive.
            found |= {key: (cls[i].copy(), patches[i].copy()) for i, key in enumerate(chunk)}
            self.encoded += len(chunk)
        return found

    def _remember(self, key: str, entry: Features) -> None:
        """Puts an entry last in line and drops the first ones while there is too much."""
        if key not in self._entries:
            self._bytes += sum(array.nbytes for array in entry)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while self._bytes > self._capacity and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= sum(array.nbytes for array in dropped)


def launch_size(count: int, devices: int) -> int:
    """The next power of two per device, so that few shapes are ever compiled."""
    per_device = -(-count // devices)
    return devices * (1 << (per_device - 1).bit_length())
