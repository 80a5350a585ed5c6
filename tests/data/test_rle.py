"""COCO run lengths: strings that pycocotools 2.0.11 wrote, round trips, and damage."""

import numpy as np
import pytest

from magiccolor_jax.data import rle

Y, X = np.indices((37, 53))
FIRST, LAST = (np.zeros((3, 5), bool) for _ in range(2))
FIRST[0, 0], LAST[2, 4] = True, True

# The strings were made by pycocotools' mask.encode(np.asfortranarray(mask.astype(np.uint8))).
GOLDEN = {
    "zeros": (np.zeros((3, 5), bool), b"?"),
    "ones": (np.ones((3, 5), bool), b"0?"),
    "first pixel": (FIRST, b"01>"),
    "last pixel": (LAST, b">1"),
    "checker": (np.indices((4, 3)).sum(axis=0) % 2 == 1, b"11110O10O0"),
    "noise": (
        np.random.default_rng(0).random((7, 9)) < 0.5,
        b"2110010O141MNO011OO01011NO0021OOO00023",
    ),
    "disc": (
        (Y - 18) ** 2 + (X - 20) ** 2 < 200,
        b"_73n08J4M2N2N2N2N2O0O2O00000O2O0001N1000001N101N2N2N2N2N3L6H]d0",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_strings_are_pycocotools(name: str):
    mask, counts = GOLDEN[name]
    assert rle.encode(mask) == {"size": list(mask.shape), "counts": counts}
    for stored in (counts, counts.decode()):
        found = rle.decode({"size": list(mask.shape), "counts": stored})
        np.testing.assert_array_equal(found, mask)
        assert found.flags.c_contiguous


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 200), (61, 83), (700, 900)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_round_trip(shape: tuple[int, int], share: float):
    mask = np.random.default_rng(1).random(shape) < share
    stored = rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(stored), mask)
    bits = np.concatenate([[0], mask.T.ravel(), [1 - mask[-1, -1]]]).astype(int)
    ends = np.flatnonzero(np.diff(bits))
    runs = np.diff(ends, prepend=0).tolist()
    np.testing.assert_array_equal(rle.decode({"size": list(shape), "counts": runs}), mask)


def test_a_view_that_is_not_contiguous():
    mask = GOLDEN["disc"][0]
    assert rle.encode(np.ascontiguousarray(mask.T).T) == rle.encode(mask)
    assert rle.encode(mask[::2, ::3]) == rle.encode(mask[::2, ::3].copy())


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"", "an empty string"),
        (b">", "3 x 5 = 15 pixels, got 1 runs of 0 to 14, 14"),
        (b">2", "runs fill the mask"),
        (b"?0?", "runs fill the mask"),
        (b"5N:", "-2 to 10, 13"),  # a negative run
        (b"P", "a string cut short"),
        (b"0?P", "a string cut short"),
        (b"0?!", "characters from '0' to 'o'"),
        (b"0\xff", "characters from '0' to 'o'"),
        ("0\u00e9", "characters from '0' to 'o'"),
        (b"oooooo0", "one of 7 groups"),
        ([15, 1], "runs fill the mask"),
        ([-1, 16], "-1 to 16, 15"),
        ([5, -1, 11], "-1 to 11, 15"),
        ([10**30], "runs fill the mask"),
        ([], "a list of whole numbers, got list"),
        ([7.5, 7.5], "a list of whole numbers"),
        ([True] * 15, "a list of whole numbers"),
        (None, "got NoneType"),
    ],
)
def test_damaged_counts(counts: object, says: str):
    with pytest.raises(ValueError, match=f"a run-length mask: .*({says})"):
        rle.decode({"size": [3, 5], "counts": counts})


@pytest.mark.parametrize(
    "size", [[3], [3, 5, 1], [0, 5], [-3, -5], [3.0, 5], "35", None, [8001, 8000], [10**9, 10**9]]
)
def test_damaged_size(size: object):
    with pytest.raises(ValueError, match="its size is reasonable"):
        rle.decode({"size": size, "counts": b"?"})


@pytest.mark.parametrize("fields", [{}, {"size": [3, 5]}, {"size": [3, 5], "counts": b"?", "a": 1}])
def test_other_fields(fields: dict):
    with pytest.raises(ValueError, match="expected size and counts"):
        rle.decode(fields)


def test_any_damage_reads_or_says_so():
    draw, (mask, counts) = np.random.default_rng(0), GOLDEN["disc"]
    for _ in range(500):
        damaged = bytearray(counts)
        damaged[draw.integers(len(counts))] = draw.integers(256)
        try:
            found = rle.decode({"size": list(mask.shape), "counts": bytes(damaged)})
        except ValueError:
            continue
        assert found.shape == mask.shape


def test_masks_without_pixels_are_refused():
    with pytest.raises(ValueError, match="its size is reasonable"):
        rle.encode(np.zeros((0, 5), bool))


def test_the_largest_mask():
    mask = np.ones((8000, 8000), bool)  # MAX_PIXELS
    mask[3, -1] = False
    stored = rle.encode(mask)
    assert stored == {"size": [8000, 8000], "counts": b"0SVlPm11ic[oRN"}
    np.testing.assert_array_equal(rle.decode(stored), mask)
