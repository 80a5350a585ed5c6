"""The Fréchet distance of two sets of features (FID: Heusel et al. 2017, section 2).

Statistics are gathered in float64 on the host, batch after batch; those of several processes add
up. Their files are those of pytorch-fid with a count more.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from magiccolor_jax.files import atomic_file


class Normal(NamedTuple):
    """The normal distribution that a set of features is taken for."""

    mean: Float64[np.ndarray, "D"]
    covariance: Float64[np.ndarray, "D D"]


class Statistics(NamedTuple):
    """Of N features: what a mean and a covariance take, and what is needed to go on."""

    count: int
    mean: Float64[np.ndarray, "D"]
    scatter: Float64[np.ndarray, "D D"]
    """Sum of the outer products of features less their mean."""

    @classmethod
    def of(cls, features: Float[np.ndarray, "N D"]) -> "Statistics":
        """Of a batch, which may be empty.

        Raises:
            ValueError: features that are no numbers.
        """
        values = np.asarray(features, np.float64)
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            raise ValueError(
                f"features must be finite, got {len(bad)} pictures with nan or infinity, the first "
                f"number {bad[0]}: the network's weights are damaged; convert them again"
            )
        mean = values.sum(axis=0) / max(len(values), 1)
        off = values - mean
        return cls(len(values), mean, off.T @ off)

    def merged(self, other: "Statistics") -> "Statistics":
        """Of both sets together (Chan, Golub and LeVeque 1979)."""
        count, gap = self.count + other.count, other.mean - self.mean
        share = other.count / max(count, 1)
        between = np.outer(gap, gap) * (self.count * share)
        mean = self.mean + gap * share
        return Statistics(count, mean, self.scatter + other.scatter + between)

    def normal(self) -> Normal:
        """With the unbiased covariance.

        Raises:
            ValueError: of fewer than two features.
        """
        if self.count < 2:
            raise ValueError(
                f"a covariance takes at least 2 pictures, got {self.count}; give more of them"
            )
        return Normal(self.mean, self.scatter / (self.count - 1))

    def save(self, path: Path) -> None:
        """Writes `mu`, `sigma` (as pytorch-fid reads them) and `count` as .npz.

        Raises:
            ValueError: of fewer than two features.
        """
        normal = self.normal()
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=normal.mean, sigma=normal.covariance, count=np.int64(self.count))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """What `save` wrote.

        Raises:
            ValueError: not such a file, or one without a count, to which nothing can be added.
        """
        found = _read(path, ("mu", "sigma", "count"))
        count = int(found["count"])
        return cls(count, found["mu"], found["sigma"] * (count - 1))


def load_normal(path: Path) -> Normal:
    """From a file of ours or of pytorch-fid.

    Raises:
        ValueError: not such a file.
    """
    found = _read(path, ("mu", "sigma"))
    return Normal(found["mu"], found["sigma"])


def frechet_distance(one: Normal, other: Normal) -> float:
    """Squared distance of two normal distributions.

    The trace of the root of a product of covariances is the sum of the singular values of the
    product of their roots: nothing is inverted, so that fewer features than they are wide do no
    harm.

    Raises:
        ValueError: features of different widths.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"features must be of one width, got {one.mean.size} and {other.mean.size}; "
            "make both by the same network"
        )
    roots = _root(one.covariance) @ _root(other.covariance)
    shared = np.linalg.svd(roots, compute_uv=False).sum()
    gap = one.mean - other.mean
    spread = np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared
    return float(gap @ gap + spread)


def _root(covariance: Float64[np.ndarray, "D D"]) -> Float64[np.ndarray, "D D"]:
    """The symmetric root; what rounding makes of eigenvalues that are zero is none."""
    values, vectors = np.linalg.eigh(covariance)
    noise = values.size * np.finfo(np.float64).eps * max(values.max(), 0)
    return vectors * np.sqrt(np.where(values > noise, values, 0)) @ vectors.T


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, without unpickling; all but `count` in float64."""
    try:
        # np.load leaves a file that it opened itself open when it is not whole.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: statistics must be a whole .npz file of plain arrays, got {error}; make it "
            "again"
        ) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"{path}: statistics must hold {', '.join(names)}; {', '.join(missing)} missing, got "
            f"{', '.join(found) or 'nothing'}; make the file again"
        )
    return {name: np.asarray(found[name], np.float64) for name in names}
