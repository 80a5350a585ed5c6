"""One training at a time in a folder, and what its record says of a start that failed."""

import signal

import pytest
from oracles.runs import cheap_run

from magiccolor_jax.training.folder import check_shared, claimed
from magiccolor_jax.training.record import RunRecord, read_record
from magiccolor_jax.training.stopping import PreemptedError, Stop


def test_a_folder_is_held_by_one(tmp_path):
    with (
        claimed(tmp_path),
        pytest.raises(ValueError, match="one training at a time.*process .* on"),
        claimed(tmp_path),
    ):
        pass
    with claimed(tmp_path):
        check_shared(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"), [(None, "failed"), ("running", "failed"), ("done", "done")]
)
def test_a_start_that_failed_overwrites_nothing_but_a_lie(tmp_path, before, after):
    config = cheap_run(tmp_path)
    config.out.mkdir()
    if before:
        RunRecord(config, {"networks": "its own"}, "plan").update(state=before, step=7)
    RunRecord(config, {"networks": "another"}, "plan").failed_to_start(ValueError("no room"))
    record = read_record(config.out)
    assert record["state"] == after
    assert record["error"] == (None if after == "done" else "ValueError: no room")
    if before:
        assert record["model"] == {"networks": "its own"} and record["step"] == 7


def test_a_signal_breaks_off_what_has_nothing_to_save():
    with pytest.raises(PreemptedError), Stop().listening():
        signal.raise_signal(signal.SIGTERM)
    with Stop().listening() as stop:
        stop.saves = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked and stop.agreed(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
