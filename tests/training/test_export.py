"""A run's checkpoint as a model folder: what is in it, what is shared, what failures say."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.runs import cheap_run, small_stage, write_start
from oracles.trained import write_run

from magiccolor_jax.checkpoint import check_weights, read_config
from magiccolor_jax.tensorfile import TensorFile, TensorFileWriter
from magiccolor_jax.training import export, stored
from magiccolor_jax.training.initial import find_origins
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.stages import STAGE1
from magiccolor_jax.training.stored import StoredParameters

OWN = ("denoiser", "reference", "sketch_guider", "instance_guider")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_start(folder / "start")
    return folder


@pytest.fixture(scope="module")
def used(folder):
    """What the run in folder/run holds, by step; the middle checkpoint is the best."""
    return write_run(cheap_run(folder), {3: 0.5, 6: 0.25, 9: 0.75})


@pytest.fixture
def broken(folder, used, tmp_path):
    """A run that a test may damage; its checkpoints are the others'."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(folder / "run" / "checkpoints")
    for name in ("run.json", "fixed.safetensors"):
        (run / name).write_bytes((folder / "run" / name).read_bytes())
    return run


def parameters(model):
    """Path -> value of the networks that a training may change."""
    networks = [name for name in OWN if (model / f"{name}.safetensors").is_file()]
    files = {name: TensorFile(model / f"{name}.safetensors") for name in networks}
    return {f"{name}/{key}": file.read(key) for name, file in files.items() for key in file.specs}


def assert_same(got, expected):
    assert sorted(got) == sorted(expected)
    for path, value in expected.items():
        assert got[path].dtype == value.dtype, path
        np.testing.assert_array_equal(got[path], value, err_msg=path)


def test_the_model_is_the_average_beside_what_was_not_trained(folder, used, tmp_path):
    export.export_model(folder / "run", tmp_path / "model", 6)
    assert_same(parameters(tmp_path / "model"), used[6])
    start, model = folder / "start", read_config(tmp_path / "model")
    check_weights(tmp_path / "model", model)
    assert model.recipe == cheap_run(folder).recipe
    assert model.networks == read_config(start).networks
    vae = "vae.safetensors"
    assert (tmp_path / "model" / vae).stat().st_ino == (start / vae).stat().st_ino


def test_without_an_average_it_is_what_was_trained_in_its_type(folder, tmp_path):
    config = cheap_run(folder, out=tmp_path / "run", average=None, parameters="bfloat16")
    (values,) = write_run(config, {1: 0.5}).values()
    export.export_model(config.out, tmp_path / "model", 1)
    assert {value.dtype for value in values.values()} == {jnp.dtype(jnp.bfloat16)}
    assert_same(parameters(tmp_path / "model"), values)


def test_large_networks_are_read_block_by_block(folder, used, monkeypatch):
    whole = StoredParameters(folder / "run" / "checkpoints", 3)
    monkeypatch.setattr(stored, "AT_ONCE", 100_000)
    blocks = StoredParameters(folder / "run" / "checkpoints", 3)
    names = [f"denoiser/down_blocks/{level}/resnets/0/conv1/kernel" for level in (0, 1, 0)]
    for name in names:
        np.testing.assert_array_equal(blocks.read(name), used[3][name])
        np.testing.assert_array_equal(whole.read(name), used[3][name])
    held = blocks._held["denoiser"]
    assert all(path.startswith("denoiser/down_blocks/0/resnets/") for path in held)
    assert len(whole._held["denoiser"]) > 10 * len(held)


@pytest.fixture(scope="module")
def partial(folder):
    """A run of the denoiser alone, and what it holds."""
    stage = replace(small_stage(), trainable=((r"denoiser/.*", True), (r".*", False)))
    config = cheap_run(folder, out=folder / "partial", stage=stage)
    (values,) = write_run(config, {1: 0.5}).values()
    return config.out, values


def test_what_a_stage_fixes_comes_from_its_own_file(folder, partial, tmp_path):
    run, values = partial
    export.export_model(run, tmp_path / "model", 1)
    got = parameters(tmp_path / "model")
    assert_same(got, values)
    began = parameters(folder / "start")
    same = {p.split("/")[0] for p in got if np.array_equal(got[p], began[p])}
    assert same == set(OWN) - {"denoiser"}


def test_fixed_parameters_are_kept_as_the_first_checkpoint_found_them(tmp_path):
    run = tmp_path / "run"
    for value in (1.0, 2.0):
        export.save_fixed(run, {"denoiser/x": jnp.full(3, value)})
        assert TensorFile(run / export.FIXED).read("denoiser/x")[0] == value
    (run / "checkpoints" / "5").mkdir(parents=True)
    export.save_fixed(run, {"denoiser/x": jnp.full(3, 3.0)})
    assert TensorFile(run / export.FIXED).read("denoiser/x")[0] == 2.0


@pytest.mark.parametrize(("which", "step"), [("latest", 9), ("best", 6), ("3", 3)])
def test_checkpoints_have_names(folder, used, which, step):
    assert export.find_step(folder / "run", which) == step


@pytest.mark.parametrize("which", ["4", "newest", "03"])
def test_a_checkpoint_that_is_not_there_is_told(folder, used, which):
    with pytest.raises(FileNotFoundError, match=rf"'{which}', got \[3, 6, 9\]; name one of these"):
        export.find_step(folder / "run", which)


def test_a_run_without_checkpoints_is_told(broken, tmp_path):
    (broken / "checkpoints").unlink()
    with pytest.raises(FileNotFoundError, match="expected checkpoint 'latest', got none"):
        export.start_folder(broken)
    with pytest.raises(FileNotFoundError, match="this checkpoint is not there"):
        export.export_model(broken, tmp_path / "model", 3)


def change_record(run, **changes):
    content = json.loads((run / "run.json").read_text()) | changes
    (run / "run.json").write_text(json.dumps(content))


def test_a_start_that_is_gone_is_told(broken, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    change_record(broken, start=str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="config.json, vgg19.safetensors.*put it back"):
        export.export_model(broken, tmp_path / "model", 3)
    change_record(broken, start=None)
    with pytest.raises(ValueError, match="expected `start`"):
        export.export_model(broken, tmp_path / "model", 3)
    assert not (tmp_path / "model").exists()


def test_fixed_parameters_that_are_gone_or_not_whole_are_told(broken, partial, tmp_path):
    (broken / export.FIXED).unlink()
    with pytest.raises(FileNotFoundError, match="holds what the run does not train"):
        export.export_model(broken, tmp_path / "model", 3)
    run, _ = partial
    file = TensorFile(run / export.FIXED)
    kept = {k: s for k, s in file.specs.items() if k != "reference/conv_in/bias"}
    with TensorFileWriter(broken / export.FIXED, kept) as writer:
        for key in kept:
            writer.write(key, file.read(key))
    (broken / "checkpoints").unlink()
    (broken / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(ValueError, match=r"reference: the run's files.*\['conv_in/bias'\]"):
        export.export_model(broken, tmp_path / "model", 1)


def test_nothing_is_overwritten_and_nothing_is_left_behind(folder, used, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError):
        export.export_model(folder / "run", tmp_path / "model", 3)
    (tmp_path / "model").rmdir()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "link_or_copy", fail)
    with pytest.raises(OSError, match="no space left"):
        export.export_model(folder / "run", tmp_path / "model", 3)
    assert list(tmp_path.iterdir()) == []


def test_stage_two_starts_from_the_run_of_stage_one(folder, tmp_path):
    first = cheap_run(folder, out=tmp_path / "first", stage=small_stage(second=False))
    (values,) = write_run(first, {2: 0.5}).values()
    assert not [path for path in values if path.startswith("instance_guider")]
    stage = replace(small_stage(), origins=STAGE1)
    second = cheap_run(folder, out=tmp_path / "second", init=first.out, stage=stage)
    start = plan_training(second)
    model = export.start_folder(first.out)
    assert model == first.out / "models" / "0000002" == export.start_folder(first.out)
    assert_same(parameters(model), values)
    shapes = {path: leaf.shape for path, leaf in start.design.parameters.items()}
    found = find_origins(model, start.source, second.stage, shapes)
    assert {path for path in shapes if not path.startswith("instance_guider")} <= set(found)
    assert found["instance_guider/conv_in/kernel"].file == model / "denoiser.safetensors"
