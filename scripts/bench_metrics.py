"""Each metric beside its reference implementation: largest difference, and pictures per second.

    python scripts/bench_metrics.py
    python scripts/bench_metrics.py --oracle ORACLE/bin/python   # LPIPS and Inception's times too

ORACLE is the environment of scripts/goldens_lpips.py and scripts/goldens_inception.py. Both sides
take turns in one run; times are medians, compiling is not counted.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from flax import nnx
from golden_weights import seeded_pictures
from pytorch_msssim import ms_ssim as torch_ms_ssim
from report import Row, show, write_json
from scipy.linalg import sqrtm
from seeded_network import seeded_network
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from converters import maps
from magiccolor_jax.encoders.inception import Inception, InceptionConfig
from magiccolor_jax.encoders.lpips import LPIPS, LPIPSConfig
from magiccolor_jax.evaluation import quality
from magiccolor_jax.evaluation.ciede2000 import ciede2000, srgb_to_lab
from magiccolor_jax.evaluation.frechet import Statistics, frechet_distance


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compares metrics."""

    side: int = 256
    """Of the pictures, in pixels."""
    batch: int = 8
    """Pictures at once."""
    rounds: int = 3
    """Turns that both sides take."""
    oracle: Path | None = None
    """Python of an environment with lpips and pytorch-fid."""
    json: Path | None = None
    """Also write the table here."""


class Pair(NamedTuple):
    """A metric on both sides; each gives a number per picture, or an array."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    reference: str
    relative: bool = False


def main(args: Args) -> None:
    """Prints the table."""
    pixels = pictures(args)
    rows = [measured(name, pair, args) for name, pair in pairs(*pixels, args).items()]
    rows += [network_row(name, *pixels, args) for name in NETWORKS]
    show(f"{args.batch} pictures of {args.side} px, {jax.local_devices()[0].device_kind}", rows)
    write_json(args.json, rows)


def pictures(args: Args) -> tuple[np.ndarray, np.ndarray]:
    """Pages and noisy copies, [0, 1], f32."""
    truth = seeded_pictures("bench", (args.batch, args.side, args.side, 3))
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)
    return np.clip(truth + noise, 0, 1).astype(np.float32), np.clip(truth, 0, 1)


def pairs(made: np.ndarray, truth: np.ndarray, args: Args) -> dict[str, Pair]:
    """The metrics that take no network."""
    gaussian = {"gaussian_weights": True, "use_sample_covariance": False}
    windows = quality.gaussian_window(), quality.uniform_window()
    mask = np.hypot(*np.ogrid[-1 : 1 : args.side * 1j, -1 : 1 : args.side * 1j]) < 0.7
    masks = jnp.tile(mask, (args.batch, 1, 1))

    def per_picture(function: Callable, **options: Any) -> Callable[[], list[float]]:
        return lambda: [
            function(t, m, data_range=1, **options) for m, t in zip(made, truth, strict=True)
        ]

    def compiled(function: Callable) -> Callable[[], Any]:
        call = jax.jit(function)
        return lambda: call(jnp.asarray(made), jnp.asarray(truth))

    def psnr_inside(t: np.ndarray, m: np.ndarray, **options: Any) -> float:
        return peak_signal_noise_ratio(t[mask], m[mask], **options)

    def ssim_inside(t: np.ndarray, m: np.ndarray, **options: Any) -> float:
        return structural_similarity(t, m, channel_axis=-1, full=True, **options)[1][mask].mean()

    ours_and_skimage = {
        "PSNR": (quality.psnr, per_picture(peak_signal_noise_ratio)),
        "PSNR of a region": (
            lambda m, t: quality.psnr(m, t, masks),
            per_picture(psnr_inside),
        ),
        "SSIM": (
            lambda m, t: quality.ssim(m, t, windows[0]),
            per_picture(structural_similarity, channel_axis=-1, **gaussian),
        ),
        "SSIM of a region": (
            lambda m, t: quality.ssim(m, t, windows[0], masks),
            per_picture(ssim_inside, **gaussian),
        ),
        "SSIM, uniform": (
            lambda m, t: quality.ssim(m, t, windows[1]),
            per_picture(structural_similarity, channel_axis=-1),
        ),
        "CIEDE2000": (
            lambda m, t: ciede2000(srgb_to_lab(m), srgb_to_lab(t)),
            lambda: deltaE_ciede2000(rgb2lab(made.astype(float)), rgb2lab(truth.astype(float))),
        ),
    }
    return {
        name: Pair(compiled(ours), theirs, "skimage")
        for name, (ours, theirs) in ours_and_skimage.items()
    } | other_pairs(made, truth, compiled(quality.ms_ssim))


def other_pairs(made: np.ndarray, truth: np.ndarray, ms_ssim: Callable[[], Any]) -> dict[str, Pair]:
    """Those whose reference is not scikit-image."""
    planes = [torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in (made, truth)]
    features = [np.random.default_rng(i).normal(i / 9, 1, (400, 192)) for i in range(2)]
    normals = [Statistics.of(each.astype(np.float32)).normal() for each in features]
    return {
        "MS-SSIM": Pair(
            ms_ssim,
            lambda: torch_ms_ssim(*planes, data_range=1.0, size_average=False).numpy(),
            "pytorch-msssim",
        ),
        "Fréchet distance": Pair(
            lambda: frechet_distance(*normals), lambda: by_root(*normals), "scipy's sqrtm", True
        ),
    }


def by_root(one: Any, other: Any) -> float:
    """The textbook's formula."""
    root = np.real(np.asarray(sqrtm(one.covariance @ other.covariance)))
    gap = one.mean - other.mean
    return gap @ gap + np.trace(one.covariance + other.covariance - 2 * root)


def measured(name: str, pair: Pair, args: Args) -> Row:
    """A row of the table."""
    found, expected = np.asarray(pair.ours()), np.asarray(pair.theirs())
    gap = np.abs(found - expected) / (np.abs(expected) if pair.relative else 1)
    ours, theirs = zip(
        *((seconds(pair.ours), seconds(pair.theirs)) for _ in range(args.rounds)), strict=True
    )
    return row(name, pair.reference, float(gap.max()), median(ours), median(theirs))


def row(name: str, reference: str, gap: float, ours: float, theirs: float | None) -> Row:
    """What is printed."""
    return {
        "metric": name,
        "reference": reference,
        "largest difference": gap,
        "ours, ms": 1e3 * ours,
        "theirs, ms": "" if theirs is None else 1e3 * theirs,
        "theirs takes": "" if theirs is None else f"{theirs / ours:.2f}x",
    }


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, to its end."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


NETWORKS = {
    "LPIPS (alex)": (LPIPS, LPIPSConfig.alex(), maps.LPIPS, "lpips"),
    "LPIPS (vgg)": (LPIPS, LPIPSConfig.vgg(), maps.LPIPS, "lpips"),
    "Inception": (Inception, InceptionConfig.fid(), maps.INCEPTION, "pytorch-fid"),
}


def network_row(name: str, made: np.ndarray, truth: np.ndarray, args: Args) -> Row:
    """A network's row; the difference is relative to the largest value."""
    module, config, weight_map, reference = NETWORKS[name]
    network = seeded_network(module, config, weight_map)
    inputs = [jnp.asarray(x) for x in ((made,) if name == "Inception" else (made, truth))]
    call = nnx.jit(lambda network, *inputs: network(*inputs))
    found = np.asarray(call(network, *inputs))
    ours = median(seconds(lambda: call(network, *inputs)) for _ in range(args.rounds))
    if args.oracle is None:
        return row(name, reference, float("nan"), ours, None)
    expected, theirs = asked_oracle(args.oracle, name, made, truth, args.rounds)
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    return row(name, reference, float(gap), ours, theirs)


def asked_oracle(
    python: Path, name: str, made: np.ndarray, truth: np.ndarray, rounds: int
) -> tuple[np.ndarray, float]:
    """What the reference finds in its own environment, and its seconds per call."""
    script = Path(__file__).with_name("bench_metrics_oracle.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        np.savez(path, made=made, truth=truth)
        command = [python, script, name, path, rounds]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
        with np.load(path.with_name("found.npz")) as file:
            return file["found"], float(file["seconds"])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
