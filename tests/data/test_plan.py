"""Which scene is which row of which batch."""

import cloudpickle
import numpy as np
import pytest

from magiccolor_jax.data.plan import Draw, Plan, Rows
from magiccolor_jax.data.samples import Shape

WIDE, HIGH, ONE = Shape((64, 128), 2), Shape((128, 64), 2), Shape((64, 128), 1)
SHAPES = [WIDE] * 13 + [HIGH] * 6 + [ONE]


def test_every_batch_has_one_shape():
    plan = Plan(SHAPES, batch=4, seed=1)
    for step in range(4 * plan.epoch):
        assert len({SHAPES[scene] for scene in plan.scenes(step)}) == 1


def test_every_scene_is_seen_equally_often():
    plan = Plan(SHAPES, batch=4, seed=0)
    assert plan.epoch == 5
    steps = 4000
    seen = np.bincount(np.concatenate([plan.scenes(i) for i in range(steps)]), minlength=20)
    expected = steps * 4 / 20
    np.testing.assert_allclose(seen, expected, rtol=0.15)
    whole = Plan([WIDE] * 8, batch=4, seed=0)
    epoch = np.concatenate([whole.scenes(i) for i in (2, 3)])
    assert sorted(epoch) == list(range(8))


def test_a_step_depends_on_nothing_before_it():
    plan, other = Plan(SHAPES, 4, seed=3), Plan(SHAPES, 4, seed=3)
    forwards = [plan.scenes(i).tolist() for i in range(23)]
    assert [other.scenes(i).tolist() for i in reversed(range(23))] == forwards[::-1]
    assert forwards[:5] != forwards[5:10]
    assert [Plan(SHAPES, 4, seed=4).scenes(i).tolist() for i in range(23)] != forwards


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_processes_take_their_rows_of_the_same_batches(parts):
    plan, width = Plan(SHAPES, 4, seed=3), 4 // parts
    shares = [
        list(map(Rows(plan, range(p * width, (p + 1) * width), range(2, 5)).__getitem__, range(n)))
        for p in range(parts)
        for n in [3 * width]
    ]
    for step in range(2, 5):
        begin = (step - 2) * width
        rows = [draw for share in shares for draw in share[begin : begin + width]]
        assert [draw.scene for draw in rows] == plan.scenes(step).tolist()
        assert [draw.position for draw in rows] == list(range(4 * step, 4 * step + 4))


def test_a_batch_larger_than_all_scenes():
    plan = Plan([WIDE] * 3, batch=8, seed=0)
    assert plan.epoch == 1
    assert np.bincount(plan.scenes(0)).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_fingerprints_tell_plans_apart():
    same = Plan(SHAPES, 4, 0).fingerprint()
    assert Plan(list(SHAPES), 4, 0).fingerprint() == same
    others = [Plan(SHAPES[:-1], 4, 0), Plan(SHAPES, 8, 0), Plan(SHAPES, 4, 1)]
    others.append(Plan([*SHAPES[:-1], HIGH], 4, 0))
    assert same not in {plan.fingerprint() for plan in others}


def test_plans_travel_to_workers():
    plan = Plan(SHAPES, 4, 0)
    plan.scenes(3)
    rows = cloudpickle.loads(cloudpickle.dumps(Rows(plan, range(4), range(9))))
    assert rows[13] == Draw(int(plan.scenes(3)[1]), 13) and len(rows) == 36
    assert plan.alike(19).tolist() == [19] and plan.shapes() == {ONE: 1, WIDE: 13, HIGH: 6}


def test_no_scene_is_an_error():
    with pytest.raises(ValueError, match="at least one scene"):
        Plan([], 4, 0)
