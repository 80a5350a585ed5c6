"""Rows of pages against scikit-image and against the networks themselves."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.colored_cases import COLORS, painted, regions, write_colored_case
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from magiccolor_jax.data.cases import read_case
from magiccolor_jax.evaluation.judges import Judges, encoder_pixels, load_judges
from magiccolor_jax.evaluation.measuring import MOST_PSNR, Devices, measure_on_host
from magiccolor_jax.evaluation.metrics import COLOR, REGION
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.types import Sizes

NONE = Judges({}, Sizes(), ())

OURS = Protocol(name="ours", metrics=("psnr", "ssim", "ssim_uniform", *REGION, *COLOR), size=None)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case") / "page"
    write_colored_case(folder, 3)
    return read_case(folder)


def measured(case, picture, protocol=OURS, swapped=None, judges=NONE):
    page = measure_on_host(case, picture, swapped, protocol)
    return Devices(protocol, judges).measure([page])[0][0]


def noisy(picture, seed=0):
    noise = np.random.default_rng(seed).normal(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_the_truth_is_perfect(case):
    row = measured(case, case.target)
    assert row["psnr"] == MOST_PSNR and row["ssim"] == pytest.approx(1, abs=1e-6)
    assert row["difficulty"]["instances"] == len(row["instances"]) == 3
    for instance in row["instances"]:
        assert instance["region_psnr"] == MOST_PSNR and instance["oklab_error"] == 0
        assert instance["own_closest"] == 1 and instance["own"] < 1 < instance["other"]
        assert instance["dominant"] == pytest.approx(0, abs=1e-3)
    assert np.shape(row["leakage"]) == (3, 3) and "swapped" not in row


def test_whole_pictures_are_scikit_images(case):
    made = noisy(case.target)
    row = measured(case, made)
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(case.target, made), rel=1e-5)
    uniform = structural_similarity(case.target, made, channel_axis=2)
    assert row["ssim_uniform"] == pytest.approx(uniform, abs=1e-5)


def test_of_instances_only_their_own_pixels_count(case):
    """The second region alone is spoiled, and by how much is known."""
    masks = regions(3)
    made = case.target.copy()
    made[masks[1] > 0] ^= 16
    row = measured(case, made)
    values = [instance["region_psnr"] for instance in row["instances"]]
    assert values[0] == values[2] == MOST_PSNR
    assert values[1] == pytest.approx(20 * math.log10(255 / 16), abs=1e-3)
    assert (
        row["instances"][1]["region_ssim"] < 1 == pytest.approx(row["instances"][0]["region_ssim"])
    )


def test_the_swap_test_looks_at_the_two_that_changed(case):
    follows = painted([COLORS[i] for i in (1, 0, 2)], regions(3))
    half = painted([COLORS[i] for i in (1, 1, 2)], regions(3))
    for swapped, expected in ((follows, 1.0), (case.target, 0.0), (half, 0.5)):
        assert measured(case, case.target, swapped=swapped)["swapped"] == expected


def test_pages_of_several_counts_and_a_size(tmp_path):
    """At a protocol's size all pages go into one batch."""
    protocol = Protocol(name="small", metrics=("psnr", "region_psnr"), size=40)
    pages = []
    for count in (1, 2):
        write_colored_case(tmp_path / f"{count}", count, (48, 32 * count))
        case = read_case(tmp_path / f"{count}")
        pages.append(measure_on_host(case, noisy(case.target), None, protocol))
    assert pages[0].picture.shape == (40, 40, 3)
    rows = [Devices(protocol, NONE).measure([page])[0][0] for page in pages]
    assert [len(row["instances"]) for row in rows] == [1, 2]
    assert all(20 < row["psnr"] < 40 for row in rows)


def test_similarities_are_cosines(case, nano_model):
    protocol = Protocol(name="similar", metrics=("dino", "clip"), size=None)
    judges = load_judges([nano_model], protocol.judges)
    made = noisy(case.target, 3)
    row = measured(case, made, protocol, judges=judges)
    assert 0 < row["dino"] < 1 and 0 < row["clip"] < 1
    for name, stem in (("dino", "dinov2"), ("clip", "clip_vision")):
        network = judges.networks[stem]
        pixels = [encoder_pixels(stem, each, judges.sizes) for each in (made, case.target)]
        found = network(jnp.asarray(np.stack(pixels)))
        one, other = np.asarray(found.cls if stem == "dinov2" else found)
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert row[name] == pytest.approx(cosine, abs=1e-5)
        assert measured(case, case.target, protocol, judges=judges)[name] == pytest.approx(1)


def test_a_case_without_truth_or_masks_is_refused(case):
    with pytest.raises(ValueError, match=r"compares with the truth \(psnr.*expected target"):
        measured(case._replace(target=None), case.target)
    only_colors = Protocol(name="colors", metrics=("own", "own_closest", "lines"), size=None)
    row = measured(case._replace(target=None), case.target, only_colors)
    assert row["instances"][2]["own_closest"] == 1
    with pytest.raises(ValueError, match="expected one for each of 3 references, got 0"):
        measured(case._replace(sketch_masks=(), path=Path("p")), case.target)
