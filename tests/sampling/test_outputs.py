"""PNGs that know how they were made, identities of cases and models, the manifest."""

import json
import shutil
import struct
import threading
import zlib

import numpy as np
import pytest
from oracles.case_folders import noise, save, write_our_case
from PIL import Image, PngImagePlugin

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.sampling import outputs
from magiccolor_jax.sampling.outputs import (
    METADATA_KEY,
    Manifest,
    hash_case,
    hash_model,
    is_foreign,
    read_made_by,
    write_picture,
)

MADE_BY = {"settings": {"seed": 1, "guidance": 3.5}, "notes": ["größer als 色"]}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "deep/er/picture.png"
    write_picture(path, noise((9, 7, 3)), MADE_BY)
    return path


def test_metadata_come_back(picture):
    assert read_made_by(picture) == MADE_BY
    assert [p.name for p in picture.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("kept", [0, 1, 40, -13])
def test_a_cut_picture_is_not_ours(picture, kept):
    picture.write_bytes(picture.read_bytes()[:kept])
    assert read_made_by(picture) is None


@pytest.mark.parametrize("where", [60, 300, -20])
def test_a_damaged_picture_is_not_ours(picture, where):
    content = bytearray(picture.read_bytes())
    content[where] ^= 0xFF
    picture.write_bytes(content)
    assert read_made_by(picture) is None


def test_other_files_are_not_ours(tmp_path):
    save(tmp_path / "plain.png", noise((5, 5, 3)))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    info = PngImagePlugin.PngInfo()
    info.add_itxt(METADATA_KEY, '["a list"]')
    Image.fromarray(noise((5, 5, 3))).save(tmp_path / "list.png", pnginfo=info)
    for name in ("plain", "text", "folder", "list", "none"):
        assert read_made_by(tmp_path / f"{name}.png") is None


def test_a_case_is_its_pictures(tmp_path):
    case = write_our_case(tmp_path / "case")
    before = hash_case(case)
    (case / "LICENSE.txt").write_text("free")
    (case / "references/.DS_Store").write_bytes(b"junk")
    save(case / "case.png", noise((5, 5, 3)))  # an output beside the sketch
    assert hash_case(case) == before
    shutil.copytree(case, tmp_path / "copy")
    assert hash_case(tmp_path / "copy") == before
    (case / "references/2.png").rename(case / "references/4.png")
    (case / "sketch_masks/2.png").rename(case / "sketch_masks/4.png")
    (case / "reference_masks/2.png").rename(case / "reference_masks/4.png")
    assert hash_case(case) != before


@pytest.mark.parametrize("name", ["sketch.png", "references/3.png", "sketch_masks/1.png"])
def test_another_picture_is_another_case(tmp_path, name):
    case = write_our_case(tmp_path / "case")
    before = hash_case(case)
    save(case / name, noise((5, 5, 3), 9))
    assert hash_case(case) != before


def test_a_model_is_its_weights(nano_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(nano_model, copy, copy_function=shutil.copyfile)  # other times
    (copy / "manifest.json").write_text("{}")
    before = hash_model(nano_model)
    assert hash_model(copy) == before
    content = bytearray((copy / "vae.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "vae.safetensors").write_bytes(content)
    assert hash_model(copy) != before
    config = (nano_model / "config.json").read_text()
    shutil.copyfile(nano_model / "vae.safetensors", copy / "vae.safetensors")
    (copy / "config.json").write_text(config.replace('"paper"', '"release"'))
    assert hash_model(copy) != before


def test_manifest_is_written_now_and_then(tmp_path, monkeypatch):
    clock = iter(np.arange(0, 1000, 10.0))
    monkeypatch.setattr(outputs.time, "monotonic", lambda: next(clock))
    path = tmp_path / "out/manifest.json"
    manifest = Manifest(path, {"model": "m"})
    manifest.add("a", "colored")
    assert not path.exists()
    for name in "bcd":
        manifest.add(name, "skipped")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["model"] == "m" and set(content["cases"]) >= {"a", "b", "c"}
    assert (manifest.count("colored"), manifest.count("skipped")) == (1, 3)


def test_manifest_takes_any_name(tmp_path):
    names = ["[red]", "色/ページ", "\udc83p", 'quo"te']
    manifest = Manifest(tmp_path / "manifest.json", {})
    for name in names:
        manifest.add(name, "failed", error=name)
    manifest.write()
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert "色/ページ" in text
    cases = json.loads(text)["cases"]
    assert list(cases) == sorted(names) and all(cases[n]["error"] == n for n in names)


def test_manifest_from_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "MANIFEST_INTERVAL", 0.0)
    monkeypatch.setattr(outputs, "MANIFEST_SHARE", 1.0)
    manifest = Manifest(tmp_path / "manifest.json", {})
    add = lambda start: [manifest.add(f"{start}-{i}", "colored") for i in range(40)]  # noqa: E731
    threads = [threading.Thread(target=add, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest.write()
    assert len(json.loads((tmp_path / "manifest.json").read_text())["cases"]) == 160


def test_what_is_foreign(picture, tmp_path):
    save(tmp_path / "plain.png", noise((5, 5, 3)))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:-13])
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    foreign = {name: is_foreign(tmp_path / f"{name}.png") for name in ("plain", "folder", "bomb")}
    assert all(foreign.values())
    assert not is_foreign(picture) and not is_foreign(tmp_path / "none.png")
    assert not is_foreign(tmp_path / "cut.png")
    assert read_made_by(tmp_path / "bomb.png") is None


def test_a_file_that_cannot_be_read_names_itself(tmp_path):
    case = write_our_case(tmp_path / "case")
    (case / "references/3.png").unlink()
    (case / "references/3.png").symlink_to("nowhere.png")
    with pytest.raises(CaseError, match="3.png: the files of a case can be read.*check where"):
        hash_case(case)
