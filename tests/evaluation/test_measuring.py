"""Rows of pages against scikit-image and against the networks themselves."""

import math
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.colored_cases import COLORS, painted, regions, write_colored_case
from seeded_network import seeded_network
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from converters import maps
from magiccolor_jax.data.cases import read_case
from magiccolor_jax.encoders.lpips import LPIPS, LPIPSConfig
from magiccolor_jax.evaluation.judges import Judges, encoder_pixels, load_judges
from magiccolor_jax.evaluation.known import LEAST, Known
from magiccolor_jax.evaluation.measuring import MOST_PSNR, Devices, measure_on_host
from magiccolor_jax.evaluation.metrics import COLOR, REGION
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.evaluation.quality import gaussian_window, ms_ssim, ssim, uniform_window
from magiccolor_jax.nn.abstract import abstract

NONE = Judges({}, {}, ())

OURS = Protocol(name="ours", metrics=("psnr", "ssim", "ssim_uniform", *REGION, *COLOR), size=None)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case") / "page"
    write_colored_case(folder, 3)
    return read_case(folder)


def measured(case, picture, protocol=OURS, swapped=None, judges=NONE):
    known = Known(case, protocol)
    known.check()
    page = measure_on_host(known, picture, swapped)
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
    """At a protocol's size all pages go into one batch, where no mask is looked at."""
    whole = Protocol(name="small", metrics=("psnr",), size=40)
    regions = Protocol(name="small", metrics=("region_psnr", "psnr"), size=40)
    pages = {whole: [], regions: []}
    for count in (1, 2, 2):
        folder = tmp_path / f"{len(pages[whole])}"
        write_colored_case(folder, count, (48, 32 * count))
        case = read_case(folder)
        for protocol, found in pages.items():
            made = noisy(case.target, len(found))
            found.append(measure_on_host(Known(case, protocol), made, None))
    assert len({page.shape for page in pages[whole]}) == 1
    assert len({page.shape for page in pages[regions]}) == 2
    together, _ = Devices(whole, NONE).measure(pages[whole])
    alone = [Devices(whole, NONE).measure([page])[0][0] for page in pages[whole]]
    assert together == alone and len({row["psnr"] for row in alone}) == 3
    rows, _ = Devices(regions, NONE).measure(pages[regions][1:])
    assert [len(row["instances"]) for row in rows] == [2, 2]
    assert all(15 < i["region_psnr"] < 40 for row in rows for i in row["instances"])


def test_masks_are_resized_as_pictures_are(tmp_path):
    """A region of 3 x 2 halves is 3 x 2 pixels at half of the size, and stays where it is."""
    write_colored_case(tmp_path / "page", 1, (80, 80))
    case = read_case(tmp_path / "page")
    mask = np.zeros((80, 80), np.uint8)
    mask[20:26, 30:34] = 255
    protocol = Protocol(name="small", metrics=("region_psnr",), size=40)
    found = Known(case._replace(sketch_masks=(mask,)), protocol).masks[0]
    assert found[10:13, 15:17].all() and found.sum() == 6


def test_where_masks_overlap_the_higher_id_owns_the_page(case):
    masks = [mask.copy() for mask in case.sketch_masks]
    masks[0][:] = np.maximum.reduce(case.sketch_masks)
    row = measured(case._replace(sketch_masks=tuple(masks)), case.target)
    assert [each["own_closest"] for each in row["instances"]] == [1, 1, 1]
    assert row["difficulty"]["overlap"] > 0


def test_a_region_that_is_hidden_as_a_whole_has_no_numbers(case):
    masks = (case.sketch_masks[1], *case.sketch_masks[1:])
    row = measured(case._replace(sketch_masks=masks), case.target, swapped=case.target)
    first = row["instances"][0]
    assert math.isnan(first.pop("region_psnr")) and math.isnan(first.pop("region_ssim"))
    assert first == {"id": 1} and row["instances"][1]["own_closest"] == 1
    assert row["swapped"] == 0


@pytest.mark.parametrize("name", LEAST)
def test_pictures_that_are_too_small_are_named(case, name):
    least = LEAST[name]
    size = least - 1 if least > 32 else None  # 32 is the least that a protocol may ask for
    page = case if size else case._replace(sketch=case.sketch[: least - 1])
    known = Known(page, Protocol(name="small", metrics=(name,), size=size))
    with pytest.raises(ValueError, match=f"{name} cannot look at .* of at least {least} pixels"):
        known.check()


def test_least_sides_are_those_of_the_metrics():
    x = jnp.ones((1, 200, 200, 3))
    windows = {"ssim": gaussian_window(), "ssim_uniform": uniform_window()}
    calls = {name: partial(ssim, window=window) for name, window in windows.items()}
    calls |= {"ms_ssim": ms_ssim, "region_ssim": calls["ssim"]}
    calls["lpips_alex"] = abstract(LPIPS, LPIPSConfig.alex())
    calls["lpips_vgg"] = abstract(LPIPS, LPIPSConfig.vgg())
    assert calls.keys() == LEAST.keys()
    for name, call in calls.items():
        side = LEAST[name]
        if isinstance(call, LPIPS):
            assert call.cfg.smallest == side
            continue
        call(x[:, :side], x[:, :side])
        with pytest.raises(ValueError, match=r"at least|windows of"):
            call(x[:, : side - 1], x[:, : side - 1])


def test_lpips_is_the_networks_own(case):
    config = LPIPSConfig.nano()
    network = seeded_network(LPIPS, config, maps.LPIPS)
    protocol = Protocol(name="lpips", metrics=("lpips_alex",), size=None)
    judges = Judges({"lpips_alex": network}, {}, ())
    made = noisy(case.target)
    pair = [jnp.asarray(each[None], jnp.float32) / 255 for each in (made, case.target)]
    found = measured(case, made, protocol, judges=judges)["lpips_alex"]
    assert found == pytest.approx(float(network(*pair)[0]), rel=1e-5) and found > 1e-4
    same = measured(case, case.target, protocol, judges=judges)["lpips_alex"]
    assert same == pytest.approx(0, abs=1e-12)


def test_similarities_are_cosines(case, nano_model):
    protocol = Protocol(name="similar", metrics=("dino", "clip"), size=None)
    judges = load_judges([nano_model], protocol.judges)
    made = noisy(case.target, 3)
    row = measured(case, made, protocol, judges=judges)
    assert 0 < row["dino"] < 1 and 0 < row["clip"] < 1
    for name, stem in (("dino", "dinov2"), ("clip", "clip_vision")):
        network = judges.networks[stem]
        pixels = [encoder_pixels(stem, each, judges.sizes[stem]) for each in (made, case.target)]
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
    bare = case._replace(sketch_masks=(), path=Path("p"))
    with pytest.raises(ValueError, match="expected one for each of 3 references, got 0"):
        measured(bare, case.target)
    row = measured(bare, case.target, Protocol(name="whole", metrics=("psnr",), size=None))
    assert row["psnr"] == MOST_PSNR and math.isnan(row["difficulty"]["overlap"])


@pytest.mark.parametrize("part", ["sketch_masks", "reference_masks"])
def test_a_mask_that_is_nowhere_white_is_named(case, part):
    masks = list(getattr(case, part))
    masks[1] = np.minimum(masks[1], 100)
    soft = case._replace(**{part: tuple(masks)})
    with pytest.raises(
        ValueError, match=f"{part[:-1].replace('_', ' ')} 2: .* above 127.* got 100"
    ):
        measured(soft, case.target)
