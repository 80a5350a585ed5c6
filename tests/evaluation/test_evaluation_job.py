"""Whole evaluations: resumed, shared out, with networks, with bad pages."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from oracles.case_folders import save
from oracles.colored_cases import write_colored_case
from rich.console import Console
from seeded_network import seeded_network

from converters import maps
from magiccolor_jax.checkpoint import (
    ModelConfig,
    save_network,
    write_config,
)
from magiccolor_jax.data.cases import read_case
from magiccolor_jax.encoders.inception import Inception, InceptionConfig
from magiccolor_jax.evaluation import job as evaluation_job
from magiccolor_jax.evaluation.frechet import Statistics, frechet_distance
from magiccolor_jax.evaluation.job import Evaluation, choose_cases, run
from magiccolor_jax.evaluation.measuring import Devices
from magiccolor_jax.evaluation.methods import TRUTH, baseline, folder_method
from magiccolor_jax.evaluation.protocol import Protocol
from magiccolor_jax.files import locked
from magiccolor_jax.parallel.multihost import Share

PROTOCOL = Protocol(name="test", metrics=("psnr", "own", "own_closest"), size=None, resamples=50)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("cases")
    paths = {f"page {i}": root / f"page {i}" for i in range(5)}
    for index, path in enumerate(paths.values()):
        write_colored_case(path, 1 + index % 3, (48, 64) if index < 3 else (40, 48))
    return paths


def evaluation(cases, out, *methods, protocol=PROTOCOL, networks=(), share=(0, 1), batch=2):
    chosen = [*methods] or [baseline(name) for name in (TRUTH, "grey", "mean_color")]
    return Evaluation(protocol, cases, chosen, networks, out, Share(*share), batch)


def ran(*args, **options):
    console = Console(file=io.StringIO(), width=200)
    return run(evaluation(*args, **options), console), console.file.getvalue()


@pytest.fixture
def measured(monkeypatch):
    """The case of each page that is measured."""
    seen, measure = [], evaluation_job.measure_on_host

    def spied(known, *rest):
        seen.append(known.case.name)
        return measure(known, *rest)

    monkeypatch.setattr(evaluation_job, "measure_on_host", spied)
    return seen


def test_a_report_in_every_form(cases, tmp_path):
    result, _ = ran(cases, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    means = report["methods"]
    assert means["truth"]["psnr"]["value"] == 100 and means["truth"]["own_closest"]["value"] == 1
    assert means["grey"]["psnr"]["value"] < means["mean_color"]["psnr"]["value"]
    assert means["grey"]["own_closest"]["count"] == 3  # one reference has no rival
    assert means["grey"]["psnr"]["low"] <= result.means["grey"][0].value
    assert report["groups"]["K = 1"]["cases"] == 2
    assert len(report["rows"]["grey"]["page 1"]["instances"]) == 2
    with (tmp_path / "cases.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 15
    values = [float(line["psnr"]) for line in lines if line["method"] == "grey"]
    assert np.mean(values) == pytest.approx(means["grey"]["psnr"]["value"], abs=1e-5)
    with (tmp_path / "instances.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * (1 + 2 + 3 + 1 + 2)


def test_only_what_is_new_is_measured(cases, tmp_path, measured):
    some = {name: cases[name] for name in list(cases)[:3]}
    ran(some, tmp_path)
    assert len(measured) == 9
    ran(cases, tmp_path)
    assert len(measured) == 15
    first, _ = ran(cases, tmp_path)
    assert len(measured) == 15
    ran(cases, tmp_path, protocol=Protocol(name="test", metrics=("psnr",), size=None))
    assert len(measured) == 30 and set(first.means) == {"truth", "grey", "mean_color"}


def test_a_changed_picture_is_measured_again(cases, tmp_path, measured):
    folder = tmp_path / "pred"
    for name, path in cases.items():
        save(folder / f"{name}.png", read_case(path).target)
    ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    save(folder / "page 2.png", read_case(cases["page 2"]).sketch)
    result, _ = ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    assert len(measured) == 6 and measured[-1] == "page 2"
    assert result.rows["ours"][2].row["psnr"] < 20 < result.rows["ours"][1].row["psnr"]


def test_a_bad_page_loses_nothing_of_the_others(cases, tmp_path, measured):
    folder = tmp_path / "pred"
    for name, path in cases.items():
        save(folder / f"{name}.png", read_case(path).target)
    (folder / "page 1.png").write_bytes(b"no picture")
    save(folder / "page 3.png", read_case(cases["page 0"]).target)
    with pytest.raises(ValueError, match="2 pages could not be measured") as raised:
        ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    assert "ours, page 1: " in str(raised.value) and "ours, page 3: " in str(raised.value)
    assert len(measured) == 3 and not (tmp_path / "out/report.json").exists()
    for name in ("page 1", "page 3"):
        save(folder / f"{name}.png", read_case(cases[name]).target)
    ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    assert len(measured) == 5 and (tmp_path / "out/report.json").exists()


def test_processes_share_the_pages_and_the_last_run_reports(cases, tmp_path, measured):
    whole, _ = ran(cases, tmp_path / "alone")
    for index in (1, 0):
        result, printed = ran(cases, tmp_path / "shared", share=(index, 2))
        assert result is None and "without --process" in printed
    assert len(measured) == 30
    again, _ = ran(cases, tmp_path / "shared")
    assert len(measured) == 30 and again.means == whole.means


def test_the_newest_rows_count_whoever_wrote_them(cases, tmp_path, measured):
    """Alone, then shared out after a picture has changed, then alone again."""
    folder = tmp_path / "pred"
    for name, path in cases.items():
        save(folder / f"{name}.png", read_case(path).target)
    ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    save(folder / "page 0.png", read_case(cases["page 0"]).sketch)
    for index in range(2):
        ran(cases, tmp_path / "out", folder_method("ours", folder, cases), share=(index, 2))
    result, _ = ran(cases, tmp_path / "out", folder_method("ours", folder, cases))
    assert len(measured) == 6 and result.rows["ours"][0].row["psnr"] < 20


def test_one_run_at_a_time(cases, tmp_path):
    with (
        locked(tmp_path / ".lock-0-of-1", "evaluation"),
        pytest.raises(ValueError, match="holds one evaluation of a part at a time: .* got process"),
    ):
        ran(cases, tmp_path)
    ran(cases, tmp_path)


def test_broken_cases_do_not_stop_the_others(cases, tmp_path, measured):
    mine = {name: shutil.copytree(path, tmp_path / "cases" / name) for name, path in cases.items()}
    (mine["page 1"] / "target.png").unlink()
    (mine["page 1"] / "target.png").symlink_to("nowhere.png")
    (mine["page 2"] / "sketch_masks/1.png").write_bytes(b"no picture")
    (mine["page 4"] / "sketch.png").unlink()
    with pytest.raises(ValueError, match="pages could not be measured") as raised:
        ran(mine, tmp_path / "out", baseline("grey"))
    for name in ("page 1", "page 2", "page 4"):
        assert f"{name}: " in str(raised.value)
    assert measured == ["page 0", "page 3"]


def test_what_all_cases_lack_is_said_before_any_work(cases, tmp_path, measured):
    mine = {name: shutil.copytree(path, tmp_path / "cases" / name) for name, path in cases.items()}
    (mine["page 1"] / "target.png").unlink()
    shutil.rmtree(mine["page 3"] / "sketch_masks")
    with pytest.raises(ValueError, match="takes more than these cases have") as raised:
        ran(mine, tmp_path / "out", baseline("grey"))
    assert "page 1: no target" in str(raised.value)
    assert "page 3: no sketch_masks/" in str(raised.value)
    assert not measured and not (tmp_path / "out").exists()


def test_pages_of_several_shapes_share_batches(cases, tmp_path, monkeypatch):
    sizes, measure = [], Devices.measure

    def counted(self, pages):
        sizes.append(len(pages))
        return measure(self, pages)

    monkeypatch.setattr(Devices, "measure", counted)
    ran(cases, tmp_path, protocol=Protocol(name="one", metrics=("psnr",), size=64), batch=4)
    assert sorted(sizes) == [3, 4, 4, 4]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with a small Inception."""
    folder, config = tmp_path_factory.mktemp("networks"), InceptionConfig.nano()
    network = seeded_network(Inception, config, maps.INCEPTION)
    save_network(folder / "inception.safetensors", network)
    write_config(folder, ModelConfig(networks={"inception": config}))
    return folder


def test_fid_is_the_distance_of_inceptions_features(cases, tmp_path, networks):
    protocol = Protocol(name="fid", metrics=("psnr",), size=64, fid=True, resamples=10)
    some = dict(list(cases.items())[:4])
    result, _ = ran(some, tmp_path, protocol=protocol, networks=[networks])
    assert set(result.fid) == {"grey", "mean_color"} and min(result.fid.values()) > 0
    stored = np.fromfile(tmp_path / "features.f32", "<f4").reshape(12, -1)
    normals = [Statistics.of(stored[i::3]).normal() for i in range(3)]
    expected = frechet_distance(normals[1], normals[0])
    assert result.fid["grey"] == pytest.approx(expected)
    again, _ = ran(some, tmp_path, protocol=protocol, networks=[networks])
    assert again.fid == result.fid
    saved = evaluation(some, tmp_path, protocol=protocol, networks=[networks])
    truth = tmp_path / "fid" / "truth.npz"
    alone = saved._replace(methods=[baseline("grey")], fid_truth=truth)
    (found,) = run(alone, Console(quiet=True)).fid.values()
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="FID compares with the truth"):
        run(alone._replace(fid_truth=None), Console(quiet=True))


def test_fid_without_the_network_names_what_is_missing(cases, tmp_path):
    protocol = Protocol(name="fid", metrics=("lpips_alex",), size=64, fid=True)
    with pytest.raises(FileNotFoundError, match=r"no folder \(--networks\)") as raised:
        ran(cases, tmp_path, protocol=protocol)
    assert "lpips_alex: download" in str(raised.value) and "inception:" in str(raised.value)


def test_cases_are_drawn_by_the_seed(cases):
    few = Protocol(name="few", metrics=("psnr",), cases=3)
    chosen = choose_cases(cases, few)
    assert len(chosen) == 3 and chosen == choose_cases(cases, few)
    others = [Protocol(name="few", metrics=("psnr",), cases=3, seed=seed) for seed in range(1, 9)]
    assert any(choose_cases(cases, other) != chosen for other in others)
    assert list(choose_cases(cases, PROTOCOL)) == sorted(cases)
