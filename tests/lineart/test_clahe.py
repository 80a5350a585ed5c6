"""CLAHE against kornia's, by a golden of scripts/goldens_lineart.py."""

import numpy as np
import pytest
from goldens_lineart import GOLDEN, TRIALS, picture

from magiccolor_jax.lineart.clahe import clahe

TOLERANCE = 2e-7
"""Two roundings of a value up to 1."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize("version", ["0.8", "0.9"])
@pytest.mark.parametrize("name", TRIALS)
def test_equals_kornia(golden, name, version):
    trial, given = TRIALS[name], picture(name)
    found = clahe(given, trial.limit, trial.grid, version)
    assert found.dtype == np.float32 and found.shape == given.shape
    assert np.abs(found - given).mean() > 0.02
    np.testing.assert_allclose(found, golden[f"{version}/{name}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("version", ["0.8", "0.9"])
def test_a_plain_picture_stays_plain(version):
    for level in (0.0, 0.5, 1.0):
        found = clahe(np.full((160, 200, 3), level, np.float32), 1.0, version=version)
        assert np.ptp(found) == 0 and abs(found[0, 0, 0] - level) < 0.05


def test_dark_drawings_are_brought_out():
    dark = np.full((64, 64, 1), 0.10, np.float32)
    dark[::4] = 0.12
    assert np.ptp(clahe(dark, 40.0)) > 5 * np.ptp(dark)


def test_the_least_side_of_a_picture():
    assert clahe(np.zeros((9, 9, 1), np.float32), 2.0).shape == (9, 9, 1)
    with pytest.raises(ValueError, match="8 tiles must cover a side .* got 8 pixels"):
        clahe(np.zeros((9, 8, 1), np.float32), 2.0)


@pytest.mark.parametrize(("limit", "grid"), [(-1.0, 8), (np.inf, 8), (np.nan, 8), (1.0, 0)])
def test_bad_parameters(limit, grid):
    with pytest.raises(ValueError, match="expected a finite limit of at least 0 and a grid"):
        clahe(np.zeros((64, 64, 1), np.float32), limit, grid)
