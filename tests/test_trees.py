"""Policy tables: first full match wins, silence is an error."""

import pytest

from magiccolor_jax.trees import decide

TABLE = ((r"reference/up_blocks/3/.*", "frozen"), (r"reference/.*", "trained"), (r".*/bias", "one"))


def test_the_first_full_match_wins():
    paths = ["reference/up_blocks/3/kernel", "reference/up_blocks/30/kernel", "reference/bias"]
    found = decide(TABLE, [*paths, "other/bias"], "test")
    assert list(found.values()) == ["frozen", "trained", "trained", "one"]


def test_every_path_without_a_row_is_named():
    with pytest.raises(
        ValueError, match=r"freezing: every parameter.*\n  a/biased\n  b/kernel\nAdd"
    ):
        decide(TABLE, ["a/biased", "x/bias", "b/kernel"], "freezing")
    with pytest.raises(ValueError, match="and 5 more"):
        decide(TABLE, [f"{i}/kernel" for i in range(25)], "freezing")
