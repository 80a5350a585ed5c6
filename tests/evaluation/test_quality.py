"""PSNR and SSIM against scikit-image, MS-SSIM against pytorch-msssim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from magiccolor_jax.evaluation.quality import (
    gaussian_window,
    ms_ssim,
    psnr,
    ssim,
    uniform_window,
)

WINDOWS = {
    "gaussian": (gaussian_window(), {"gaussian_weights": True, "use_sample_covariance": False}),
    "uniform": (uniform_window(), {}),
}


def pictures(shape, count=2, noise=0.1, seed=0):
    """Smooth pictures with white areas, as pages have, and noisy copies of them."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 1.4, (count, 5, 6, 3))
    rows, columns = (np.arange(side) * n // side for side, n in zip(shape, (5, 6), strict=True))
    truth = np.minimum(coarse[:, rows][:, :, columns], 1.0)
    made = np.clip(truth + noise * random.standard_normal(truth.shape), 0, 1)
    return made, truth


def ours(function, made, truth, mask=None, **more):
    if mask is not None:
        more["mask"] = jnp.asarray(mask)
    compiled = jax.jit(function, static_argnames=more.keys() & {"window"})
    return np.asarray(compiled(made.astype(np.float32), truth.astype(np.float32), **more))


@pytest.mark.parametrize("shape", [(16, 16), (33, 70)])
def test_psnr(shape):
    made, truth = pictures(shape)
    expected = [
        peak_signal_noise_ratio(t, m, data_range=1) for m, t in zip(made, truth, strict=True)
    ]
    np.testing.assert_allclose(ours(psnr, made, truth), expected, rtol=1e-6)


def test_psnr_of_the_same_is_infinite():
    made, _ = pictures((8, 8))
    assert np.isposinf(ours(psnr, made, made)).all()


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("shape", [(11, 11), (33, 70), (128, 97)])
def test_ssim(name, noise, shape):
    window, options = WINDOWS[name]
    made, truth = pictures(shape, noise=noise)
    expected = [
        structural_similarity(t, m, data_range=1, channel_axis=-1, **options)
        for m, t in zip(made, truth, strict=True)
    ]
    np.testing.assert_allclose(ours(ssim, made, truth, window=window), expected, atol=5e-6)


@pytest.mark.parametrize("name", WINDOWS)
def test_ssim_of_the_same_is_one(name):
    made, _ = pictures((20, 30))
    np.testing.assert_allclose(ours(ssim, made, made, window=WINDOWS[name][0]), 1, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(161, 200), (256, 176), (171, 333)])
@pytest.mark.parametrize("noise", [0.02, 0.6])
def test_ms_ssim(shape, noise):
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("pytorch_msssim").ms_ssim
    made, truth = pictures(shape, noise=noise)
    planes = (torch.from_numpy(np.moveaxis(a, -1, 1)) for a in (made, truth))
    expected = oracle(*planes, data_range=1.0, size_average=False)
    np.testing.assert_allclose(ours(ms_ssim, made, truth), expected, atol=2e-6)


def test_a_contrary_scale_counts_as_nothing():
    _, truth = pictures((176, 176))
    assert (ours(ms_ssim, 1 - truth, truth) == 0).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_only_the_mask_counts(metric):
    made, truth = pictures((40, 50))
    more = {"window": gaussian_window()} if metric is ssim else {}
    mask = np.zeros((2, 40, 50), bool)
    mask[0, 3:20, 8:30] = mask[1, 5:, :7] = True
    found = ours(metric, made, truth, mask=mask, **more)
    far = np.where(mask[..., None], made, 1 - made)
    if metric is psnr:
        np.testing.assert_allclose(ours(metric, far, truth, mask=mask), found)
        expected = [
            peak_signal_noise_ratio(t[m], x[m], data_range=1)
            for x, t, m in zip(made, truth, mask, strict=True)
        ]
    else:
        full = [
            structural_similarity(
                t, x, data_range=1, channel_axis=-1, full=True, **WINDOWS["gaussian"][1]
            )[1]
            for x, t in zip(made, truth, strict=True)
        ]
        inner = mask.copy()
        inner[:, :5] = inner[:, -5:] = inner[:, :, :5] = inner[:, :, -5:] = False
        expected = [f[m].mean() for f, m in zip(full, inner, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_empty_mask_is_no_number():
    made, truth = pictures((20, 20))
    empty = np.zeros((2, 20, 20), bool)
    assert np.isnan(ours(psnr, made, truth, mask=empty)).all()
    assert np.isnan(ours(ssim, made, truth, window=uniform_window(), mask=empty)).all()


def test_pictures_that_are_too_small_are_told():
    made, truth = pictures((10, 160))
    with pytest.raises(ValueError, match="windows of 11 x 11 .* got 10 x 160"):
        ours(ssim, made, truth, window=gaussian_window())
    with pytest.raises(ValueError, match="at least 161 px, got 160 x 160"):
        ours(ms_ssim, *pictures((160, 160)))
