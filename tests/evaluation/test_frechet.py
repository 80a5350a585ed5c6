"""Fréchet distances against SciPy's matrix root, and statistics in parts."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from magiccolor_jax.evaluation.frechet import Normal, Statistics, frechet_distance, load_normal

WIDTH = 24


def features(count, seed, width=WIDTH):
    random = np.random.default_rng(seed)
    mixing = random.normal(0, 1, (width, width)) * np.linspace(0.01, 2, width)
    return (random.normal(0.3, 1, (count, width)) @ mixing).astype(np.float32)


def normal(*args, **kwargs):
    return Statistics.of(features(*args, **kwargs)).normal()


def test_features_that_are_no_numbers_are_refused():
    features = np.zeros((4, 3))
    features[2, 1] = np.nan
    with pytest.raises(ValueError, match="got 1 pictures with nan or infinity, the first number 2"):
        Statistics.of(features)


def test_statistics():
    found = features(50, 0)
    mean, covariance = normal(50, 0)
    np.testing.assert_allclose(mean, found.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(found, rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cuts", [[10], [0, 1, 49], [50]])
def test_parts_add_up(cuts):
    found = features(50, 1)
    parts = [Statistics.of(part) for part in np.split(found, cuts)]
    whole, total = Statistics.of(found), parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    assert total.count == 50
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(total.scatter, whole.scatter, rtol=1e-10, atol=1e-10)


def test_distance_equals_that_of_the_matrix_root():
    one, other = normal(100, 2), normal(80, 3)
    root = sqrtm(one.covariance @ other.covariance).real
    gap = one.mean - other.mean
    expected = gap @ gap + np.trace(one.covariance + other.covariance - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_of_one_dimension_it_is_known():
    one, other = (Normal(np.array([m]), np.array([[s**2]])) for m, s in ((1.0, 2.0), (4.0, 0.5)))
    assert frechet_distance(one, other) == pytest.approx(3**2 + 1.5**2)


def test_fewer_features_than_they_are_wide():
    """Covariances without full rank: apart by the mean alone, then by nothing."""
    one = normal(7, 4)
    moved = one._replace(mean=one.mean + 0.5)
    assert frechet_distance(one, moved) == pytest.approx(0.25 * WIDTH, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-5)
    other = normal(9, 5)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-6)


def test_files(tmp_path):
    whole = Statistics.of(features(30, 6))
    whole.save(tmp_path / "ours.npz")
    again = Statistics.load(tmp_path / "ours.npz")
    assert again.count == 30
    np.testing.assert_allclose(again.scatter, whole.scatter, rtol=1e-12)
    mean, covariance = whole.normal()
    np.savez(tmp_path / "theirs.npz", mu=mean, sigma=covariance)
    for name in ("ours", "theirs"):
        assert frechet_distance(load_normal(tmp_path / f"{name}.npz"), whole.normal()) < 1e-6
    with pytest.raises(ValueError, match="count missing, got mu, sigma; make"):
        Statistics.load(tmp_path / "theirs.npz")


@pytest.mark.parametrize("damage", ["cut", "text", "pickled", "empty"])
def test_damaged_files_are_told(tmp_path, damage):
    path = tmp_path / "statistics.npz"
    if damage == "pickled":
        np.savez(path, mu=np.array([{}], dtype=object), sigma=np.eye(1))
    else:
        Statistics.of(features(30, 7)).save(path)
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-100], "text": b"mu sigma", "empty": b""}[damage])
    with pytest.raises(ValueError, match="must be a whole .npz file of plain arrays"):
        load_normal(path)


def test_what_cannot_be_compared_is_told():
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        Statistics.of(features(1, 8)).normal()
    with pytest.raises(ValueError, match="of one width, got 24 and 8"):
        frechet_distance(normal(9, 8), normal(9, 8, width=8))
