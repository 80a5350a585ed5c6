"""References that were seen before are not encoded again."""

import numpy as np
import pytest

from magiccolor_jax.sampling.token_cache import LARGEST_LAUNCH, TokenCache, launch_size

SIDE, WIDTH, GRID = 6, 5, 2
ENTRY = 4 * WIDTH * (1 + GRID * GRID)
"""Bytes of one picture's features."""


class Encoder:
    """Features that tell pictures apart; remembers its launches."""

    def __init__(self):
        self.launches = []

    def __call__(self, pixels):
        self.launches.append(len(pixels))
        mean = pixels.mean((1, 2, 3), dtype=np.float32)
        cls = mean[:, None] + np.arange(WIDTH, dtype=np.float32)
        return cls, np.broadcast_to(cls[:, None, None], (len(pixels), GRID, GRID, WIDTH))


def picture(value: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value, np.float32)


def cache_of(encoder, *, entries=100, devices=1):
    return TokenCache(encoder, devices=devices, capacity=entries * ENTRY)


def test_each_picture_gets_its_own_features():
    cache = cache_of(Encoder())
    found = cache.features([picture(v) for v in (3, 1, 3, 2)])
    assert [cls[0] for cls, _ in found] == [3, 1, 3, 2]
    assert all(patches.shape == (GRID, GRID, WIDTH) for _, patches in found)
    assert [patches[1, 1, 0] for _, patches in found] == [3, 1, 3, 2]


def test_a_repeated_reference_is_encoded_once():
    encoder = Encoder()
    cache = cache_of(encoder)
    cache.features([picture(1), picture(1), picture(2)])
    assert cache.encoded == 2 and encoder.launches == [2]
    cache.features([picture(2), picture(1)])
    assert cache.encoded == 2 and encoder.launches == [2]
    assert cache.features([]) == []


@pytest.mark.parametrize(("devices", "count"), [(1, 3), (1, 8), (1, 13), (3, 4), (4, 70)])
def test_launches_are_padded_to_powers_of_two(devices, count):
    encoder = Encoder()
    found = cache_of(encoder, devices=devices).features([picture(v) for v in range(count)])
    assert [cls[0] for cls, _ in found] == list(range(count))
    for size in encoder.launches:
        per_device, rest = divmod(size, devices)
        assert rest == 0 and per_device & (per_device - 1) == 0 and per_device <= LARGEST_LAUNCH
    assert sum(encoder.launches) < 2 * count + 2 * devices


def test_launch_size():
    assert [launch_size(n, 1) for n in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 8, 16]
    assert [launch_size(n, 3) for n in (1, 3, 4, 7)] == [3, 3, 6, 12]


def test_the_least_recently_used_goes_first():
    cache = cache_of(Encoder(), entries=2)
    cache.features([picture(1), picture(2)])
    cache.features([picture(1)])
    cache.features([picture(3)])  # 2 goes
    assert cache.encoded == 3
    cache.features([picture(1), picture(3)])
    assert cache.encoded == 3
    cache.features([picture(2)])
    assert cache.encoded == 4


def test_memory_is_bounded_even_by_one_large_request():
    cache = cache_of(Encoder(), entries=3)
    found = cache.features([picture(v) for v in range(20)])
    assert [cls[0] for cls, _ in found] == list(range(20))
    kept = [array for entry in cache._entries.values() for array in entry]
    assert all(array.base is None for array in kept)  # a view would hold its whole launch
    assert sum(array.nbytes for array in kept) == 3 * ENTRY
