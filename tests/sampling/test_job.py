"""A night's work: what is skipped, reported, written and left behind."""

import dataclasses
import errno
import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.case_folders import noise, save, write_our_case
from PIL import Image
from rich.console import Console

from magiccolor_jax.data.cases import read_case
from magiccolor_jax.parallel.multihost import Share
from magiccolor_jax.precision import Precision
from magiccolor_jax.recipe import Recipe
from magiccolor_jax.sampling import job
from magiccolor_jax.sampling.colorizer import Colored, Colorizer, Failed, Settings
from magiccolor_jax.sampling.outputs import read_made_by


class FakeColorizer(Colorizer):
    """Colours pages with the seed's value; remembers what it was given."""

    def __init__(self, recipe: Recipe | None = None, dtype=jnp.float32):
        self.sampler = SimpleNamespace(devices=1)
        self.recipe, self.precision = recipe or Recipe.paper(), Precision(dtype, dtype)
        self.seen: list[Path] = []
        self.reports: list = []

    def stream(self, cases, settings, *, batch_size, report, layers):
        self.reports.append(report)
        for index, case in enumerate(cases):
            self.seen.append(case)
            try:
                shape = read_case(case).sketch.shape
            except (ValueError, OSError) as error:
                yield Failed(index, error)
                continue
            picture = np.full(shape, settings.seed % 256, np.uint8)
            yield Colored(index, picture, (f"note of {case.name}",), 0.5)


@pytest.fixture
def cases(tmp_path) -> Path:
    root = tmp_path / "cases"
    for name in ("a", "b/deep", "c"):
        write_our_case(root / name, 1)
    return root


def started(cases, out, *, colorizer=None, share=(0, 1), model="m", terminal=False, **settings):
    """(failures, what was printed, the colouriser)."""
    colorizer = colorizer or FakeColorizer()
    roots = [cases] if isinstance(cases, Path) else cases
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal)
    work = job.Job(job.name_cases(roots), out, Settings(**settings), model, Share(*share), 2)
    failed = job.run(colorizer, work, console)
    return failed, console.file.getvalue(), colorizer


def manifest(out: Path, name="manifest.json"):
    return json.loads((out / name).read_text(encoding="utf-8"))


def statuses(out: Path):
    return {name: case["status"] for name, case in manifest(out)["cases"].items()}


def files(out: Path) -> set[str]:
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}


def test_pictures_metadata_and_manifest(cases, tmp_path):
    failed, printed, _ = started(cases, tmp_path / "out", seed=7, guidance=2.0)
    assert failed == 0 and "3 coloured, 0 done before, 0 failed" in printed
    out = tmp_path / "out"
    assert files(out) == {"a.png", "b/deep.png", "c.png", "manifest.json"}
    with Image.open(out / "b/deep.png") as image:
        assert (np.asarray(image) == 7).all()
    made_by = read_made_by(out / "a.png")
    assert made_by["settings"] == {"seed": 7, "steps": 20, "guidance": 2.0, "sampler": "ddim"}
    assert made_by["model"] == "m" and made_by["notes"] == ["note of a"]
    assert (made_by["recipe"], made_by["precision"]) == ("paper", "float32")
    written = manifest(out)
    assert written["settings"] == made_by["settings"] and written["device"] == "1 x cpu"
    assert written["cases"]["b/deep"] == {
        "status": "colored",
        "output": "b/deep.png",
        "notes": ["note of deep"],
        "seconds": 0.5,
    }


def test_a_rerun_skips_what_is_done(cases, tmp_path):
    started(cases, tmp_path)
    (tmp_path / "c.png").unlink()
    failed, printed, colorizer = started(cases, tmp_path)
    assert failed == 0 and colorizer.seen == [cases / "c"]
    assert "1 coloured, 2 done before" in printed
    assert statuses(tmp_path) == {"a": "skipped", "b/deep": "skipped", "c": "colored"}
    assert manifest(tmp_path)["cases"]["a"]["notes"] == ["note of a"]


PARTLY = Recipe.from_json(Recipe.paper().__dict__ | {"crop_stretch": True})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"steps": 3},
        {"guidance": 1.0},
        {"sampler": "dpmpp_2m"},
        {"model": "n"},
        {"colorizer": Recipe.release()},
        {"colorizer": PARTLY},
        {"colorizer": jnp.bfloat16},
    ],
)
def test_changed_settings_colour_again(cases, tmp_path, change):
    started(cases, tmp_path)

    def changed():
        made = dict(change)
        if isinstance(made.get("colorizer"), Recipe):
            made["colorizer"] = FakeColorizer(made["colorizer"])
        elif "colorizer" in made:
            made["colorizer"] = FakeColorizer(dtype=made["colorizer"])
        return made

    assert len(started(cases, tmp_path, **changed())[2].seen) == 3
    assert len(started(cases, tmp_path, **changed())[2].seen) == 0


def test_a_changed_case_is_coloured_again(cases, tmp_path):
    started(cases, tmp_path / "out")
    save(cases / "a/references/1.png", noise((37, 53, 3), 99))
    assert started(cases, tmp_path / "out")[2].seen == [cases / "a"]


def test_a_damaged_picture_is_made_again(cases, tmp_path):
    started(cases, tmp_path)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-30])
    assert started(cases, tmp_path)[2].seen == [cases / "a"]
    assert (tmp_path / "a.png").read_bytes() == whole


@pytest.mark.parametrize("damage", ["no mask", "cut sketch", "nothing there"])
def test_a_bad_case_is_reported_and_the_rest_go_on(cases, tmp_path, damage):
    if damage == "no mask":
        (cases / "a/sketch_masks/1.png").unlink()
    elif damage == "cut sketch":
        (cases / "a/sketch.png").write_bytes(b"\x89PNG")
    given = [cases, cases / "none"] if damage == "nothing there" else cases
    bad = "none" if damage == "nothing there" else "a"
    failed, printed, _ = started(given, tmp_path / "out")
    assert failed == 1 and f"failed {bad}: " in printed and "1 failed" in printed
    found = statuses(tmp_path / "out")
    assert found.pop(bad) == "failed" and set(found.values()) == {"colored"}
    assert "expected" in manifest(tmp_path / "out")["cases"][bad]["error"]


@pytest.mark.parametrize("name", ["[red]", "[/red]", "色 ページ", "a[bold]b", "\udc83p"])
def test_any_name_is_printed_as_it_is(tmp_path, name):
    write_our_case(tmp_path / "in" / name / "good", 1)
    (tmp_path / "in" / name / "bad/references").mkdir(parents=True)
    failed, printed, _ = started(tmp_path / "in", tmp_path / "out")
    assert failed == 1
    assert f"failed {name}/bad: {tmp_path}/in/{name}/bad: a case has" in printed
    assert statuses(tmp_path / "out") == {f"{name}/bad": "failed", f"{name}/good": "colored"}
    assert (tmp_path / "out" / name / "good.png").is_file()


def test_names_of_outputs(cases, monkeypatch):
    assert set(job.name_cases([cases])) == {"a", "b/deep", "c"}
    assert set(job.name_cases([cases / "a", cases / "b"])) == {"a", "deep"}
    assert set(job.name_cases([cases, cases / "a"])) == {"a", "b/deep", "c"}
    monkeypatch.chdir(cases / "a")
    assert set(job.name_cases([Path(".")])) == {"a"}
    assert set(job.name_cases([Path("."), cases / "a", Path("../a")])) == {"a"}


def test_two_cases_of_one_name_are_an_error(cases):
    write_our_case(cases / "other/a", 1)
    with pytest.raises(ValueError, match=r"other/a would both be a\.png"):
        job.name_cases([cases, cases / "other/a"])


def test_two_processes_share_the_work(cases, tmp_path):
    for index in range(2):
        started(cases, tmp_path / "two", share=(index, 2))
    started(cases, tmp_path / "one")
    parts = [f"manifest-0000{index}-of-00002.json" for index in range(2)]
    assert files(tmp_path / "two") - set(parts) == files(tmp_path / "one") - {"manifest.json"}
    done = [set(manifest(tmp_path / "two", part)["cases"]) for part in parts]
    assert done == [{"a", "c"}, {"b/deep"}]


def test_a_full_disk_stops_the_run_and_keeps_what_was_done(cases, tmp_path, monkeypatch):
    out, write, written = tmp_path / "out", job.write_picture, []

    def full(path, picture, made_by):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, picture, made_by)

    monkeypatch.setattr(job, "write_picture", full)
    with pytest.raises(OSError, match="No space left"):
        started(cases, out)
    assert files(out) == {"a.png", "manifest.json"}
    assert read_made_by(out / "a.png") is not None
    assert statuses(out)["a"] == "colored"
    monkeypatch.setattr(job, "write_picture", write)
    assert len(started(cases, out)[2].seen) == 2


def test_what_is_coloured_is_kept_when_the_device_fails(cases, tmp_path):
    class Failing(FakeColorizer):
        def stream(self, *args, **kwargs):
            yield next(super().stream(*args, **kwargs))
            raise RuntimeError("RESOURCE_EXHAUSTED")

    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="EXHAUSTED"):
        started(cases, out, colorizer=Failing())
    assert files(out) == {"a.png", "manifest.json"} and statuses(out) == {"a": "colored"}


@pytest.mark.parametrize(
    ("backend", "terminal", "reported"), [("cpu", False, True), ("gpu", False, False)]
)
def test_steps_are_reported_where_waiting_for_them_costs_nothing(
    cases, tmp_path, monkeypatch, backend, terminal, reported
):
    monkeypatch.setattr(job.jax, "default_backend", lambda: backend)
    _, _, colorizer = started(cases, tmp_path, terminal=terminal)
    assert [report is not None for report in colorizer.reports] == [reported]


def test_a_log_file_gets_a_line_now_and_then(cases, tmp_path, monkeypatch):
    assert "pages," not in started(cases, tmp_path / "quick")[1]
    monkeypatch.setattr(job, "TELL_INTERVAL", 0.0)
    printed = started(cases, tmp_path / "out")[1]
    assert "1/3 pages, " in printed and "3/3 pages, " in printed and "images/s" in printed
    assert "pages," not in started(cases, tmp_path / "seen", terminal=True)[1]


def test_the_pictures_of_others_are_not_overwritten(cases, tmp_path):
    out = tmp_path / "out"
    save(out / "a.png", noise((5, 5, 3)))
    (out / "c.png").mkdir()
    before = (out / "a.png").read_bytes()
    failed, printed, _ = started(cases, out)
    assert failed == 2 and "a.png exists and is none of ours" in printed
    assert (out / "a.png").read_bytes() == before and statuses(out)["b/deep"] == "colored"


def test_the_manifest_keeps_what_earlier_runs_made(cases, tmp_path):
    started(cases / "a", tmp_path)
    started(cases / "c", tmp_path)
    assert statuses(tmp_path) == {"a": "earlier", "c": "colored"}
    started([cases / "a", cases / "c"], tmp_path)
    assert statuses(tmp_path) == {"a": "skipped", "c": "skipped"}
    assert manifest(tmp_path)["cases"]["a"]["seconds"] == 0.5
    (tmp_path / "c.png").unlink()
    started(cases / "a", tmp_path)
    assert statuses(tmp_path) == {"a": "skipped"}
    (tmp_path / "manifest.json").write_text('{"cases": [1]}')
    started(cases / "a", tmp_path)
    assert statuses(tmp_path) == {"a": "skipped"}


def test_colouring_starts_while_cases_are_still_being_checked(tmp_path, monkeypatch):
    """The last case is checked only once the first one has been coloured."""
    count = 2 * job.CHECK_AHEAD
    for index in range(count):
        write_our_case(tmp_path / f"in/{index:03}", 1)
    begun, check = threading.Event(), job.hash_case

    def waiting(path):
        assert path.name != f"{count - 1:03}" or begun.wait(20)
        return check(path)

    class Noticing(FakeColorizer):
        def stream(self, *args, **kwargs):
            for result in super().stream(*args, **kwargs):
                begun.set()
                yield result

    monkeypatch.setattr(job, "hash_case", waiting)
    assert started(tmp_path / "in", tmp_path / "out", colorizer=Noticing())[0] == 0
    assert len(statuses(tmp_path / "out")) == count


def test_the_output_folder_is_checked(tmp_path):
    job.make_folder(tmp_path / "new/folder")
    assert (tmp_path / "new/folder").is_dir()
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ValueError, match="out must be a folder that can be written to"):
            job.make_folder(out)


def test_a_read_only_output_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(job.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission to write"):
        job.make_folder(tmp_path)


def test_fields_that_are_newer_than_a_picture_have_their_defaults():
    """A recipe of one's own is stored whole; a version that knew fewer fields made the picture."""
    recipe = dataclasses.replace(Recipe.paper(), token_drop=0.2)
    stored = json.loads(json.dumps(recipe.to_json()))
    old = {name: value for name, value in stored.items() if not name.startswith("finish")}
    assert job._completed({"recipe": old}) == {"recipe": stored}
    for made_by in ({}, {"recipe": "paper"}, {"recipe": {"unknown": 1}}):
        assert job._completed(made_by) == made_by
