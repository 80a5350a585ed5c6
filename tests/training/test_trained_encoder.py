"""A model without a pretrained DINOv2 trains its own, and pages of another size."""

import json
from dataclasses import replace

import numpy as np
import pytest
from oracles.runs import cheap_run, write_pages, write_start
from rich.console import Console

from magiccolor_jax.checkpoint import read_config
from magiccolor_jax.tensorfile import TensorFile
from magiccolor_jax.training.export import export_model
from magiccolor_jax.training.loop import Training
from magiccolor_jax.training.setup import plan_training
from magiccolor_jax.training.tables import frozen_files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compile_quickly")]

QUIET = Console(quiet=True)


def settings(folder):
    stage = cheap_run(folder).stage
    origins = (*stage.origins, ("dinov2", "dinov2"))
    return cheap_run(
        folder, stage=replace(stage, encoder=True, origins=origins), page=128, steps=2, average=None
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    write_start(folder / "start")
    write_pages(folder / "pages", 2)
    assert Training(plan_training(settings(folder)), QUIET).run() == 0
    export_model(folder / "run", folder / "model", 2)
    return folder


def test_every_layer_of_it_moves(trained):
    before, after = (
        TensorFile(trained / part / "dinov2.safetensors") for part in ("start", "model")
    )
    assert before.specs.keys() == after.specs.keys()
    same = {key for key in after.specs if np.array_equal(before.read(key), after.read(key))}
    assert same <= {"mask_token"}


def test_nothing_frozen_takes_its_place(trained):
    assert "dinov2" not in frozen_files(plan_training(settings(trained)))


def test_the_page_is_as_large_as_was_asked_for(trained):
    assert read_config(trained / "model").sizes.page == 128
    assert json.loads((trained / "run/run.json").read_text())["model"]["sizes"]["canvas"] == 128
    assert read_config(trained / "start").sizes.page == 64
    with pytest.raises(ValueError, match="page must be a multiple of 64, got 100"):
        replace(settings(trained), page=100)
