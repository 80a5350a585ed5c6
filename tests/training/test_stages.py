"""What each stage trains."""

import dataclasses

import pytest

from magiccolor_jax.checkpoint import parameter_shapes
from magiccolor_jax.models.magiccolor import MagicColorConfig
from magiccolor_jax.training.stages import STAGE1, stage1, stage2

NETWORKS = ("denoiser", "reference", "sketch_guider", "instance_guider")


@pytest.fixture(scope="module")
def parameters():
    cfg = MagicColorConfig.nano()
    return {
        f"{name}/{path}": shape
        for name in NETWORKS
        for path, shape in parameter_shapes(getattr(cfg, name)).items()
    }


def of(parameters, *names):
    return {path for path in parameters if path.split("/")[0] in names}


def test_stage_one(parameters):
    shown = {p: s for p, s in parameters.items() if not p.startswith("instance_guider")}
    trained, fixed = stage1().split(shown)
    assert trained.keys() | fixed.keys() == shown.keys() and not trained.keys() & fixed.keys()
    assert fixed.keys() == {p for p in shown if p.startswith("reference/up_blocks/3/")}
    assert stage1().instances == 1 and not stage1().instance_guider


def test_stage_two_adds_the_instance_guider(parameters):
    trained, fixed = stage2().split(parameters)
    assert of(parameters, "denoiser", "sketch_guider", "instance_guider") <= trained.keys()
    assert "instance_guider/dino_adapter/0/kernel" in trained
    assert fixed.keys() == {p for p in parameters if p.startswith("reference/up_blocks/3/")}
    assert stage2().instances == 10 and stage2().origins == STAGE1


def test_a_network_without_a_row_is_an_error(parameters):
    with pytest.raises(ValueError, match="stage1: trainable: every parameter must match"):
        stage1().split(parameters)


def test_a_stage_that_trains_nothing_is_refused(parameters):
    idle = dataclasses.replace(stage2(), trainable=((r".*", False),))
    with pytest.raises(ValueError, match="at least one parameter"):
        idle.split(parameters)
    with pytest.raises(ValueError, match="instances must be 1 to 16, got 17"):
        dataclasses.replace(stage2(), instances=17)
