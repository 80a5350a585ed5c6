"""Dealing items out to processes."""

import pytest

from magiccolor_jax.parallel.multihost import Share, share


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_every_item_goes_to_exactly_one_process(count):
    items = list(range(11))
    shares = [Share(index, count).of(items) for index in range(count)]
    assert sorted(sum(shares, [])) == items
    assert all(item % count == index for index, part in enumerate(shares) for item in part)


def test_reads_index_and_count():
    assert share("3/4") == Share(3, 4)


def test_without_text_jax_knows():
    assert share(None) == Share(0, 1)


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "a/2", "1/", "1/2/3", "0/0"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="process must be I/N"):
        share(text)
