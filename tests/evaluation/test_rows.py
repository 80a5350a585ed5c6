"""What was measured survives, whatever ends a run."""

import numpy as np

from magiccolor_jax.evaluation.rows import Rows
from magiccolor_jax.parallel.multihost import Share

ALONE = Share(0, 1)


def features(count, first=0):
    return first + np.arange(count * 5, dtype=np.float32).reshape(count, 5)


def named(*cases):
    return [("grey", case, f"key of {case}") for case in cases]


def test_rows_are_found_again_by_their_key(tmp_path):
    Rows(tmp_path, ALONE).add(named("a", "b"), [{"psnr": 1.5}, {"psnr": float("inf")}], None)
    again = Rows(tmp_path, ALONE)
    assert again.find("grey", "a", "key of a").row == {"psnr": 1.5}
    assert again.find("grey", "b", "key of b").row == {"psnr": float("inf")}
    assert again.find("grey", "a", "another") is None
    assert again.find("other", "a", "key of a") is None


def test_rows_of_several_keys_stand_side_by_side(tmp_path):
    rows = Rows(tmp_path, ALONE)
    rows.add(named("a"), [{"psnr": 1.0}], None)
    rows.add([("grey", "a", "new")], [{"psnr": 2.0}], None)
    for each in (rows, Rows(tmp_path, ALONE)):
        assert each.find("grey", "a", "new").row == {"psnr": 2.0}
        assert each.find("grey", "a", "key of a").row == {"psnr": 1.0}


def test_torn_ends_are_passed_over(tmp_path):
    Rows(tmp_path, ALONE).add(named("a"), [{"psnr": 1.0}], features(1))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"method": "grey", "ca')
    with (tmp_path / "features.f32").open("ab") as file:
        file.write(b"1234567")
    rows = Rows(tmp_path, ALONE)
    rows.add(named("b", "c"), [{}, {}], features(2, 100))
    again = Rows(tmp_path, ALONE)
    found = [again.find("grey", case, f"key of {case}") for case in "abc"]
    np.testing.assert_array_equal(
        again.features(found), np.concatenate([features(1), features(2, 100)])
    )


def test_processes_write_files_of_their_own_and_read_all(tmp_path):
    for index in range(2):
        Rows(tmp_path, Share(index, 2)).add(named(f"{index}"), [{}], features(1, 10 * index))
    rows = Rows(tmp_path, ALONE)
    found = [rows.find("grey", f"{i}", f"key of {i}") for i in range(2)]
    np.testing.assert_array_equal(rows.features(found)[:, 0], [0, 10])
