"""Fixtures that several folders of tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest
from oracles.nano_model import write_nano_model


@pytest.fixture(scope="session")
def nano_model(tmp_path_factory) -> Path:
    """A whole model folder of test size with lively random weights, page 128, recipe `paper`."""
    return write_nano_model(tmp_path_factory.mktemp("model") / "nano")


@contextmanager
def optimisations_disabled(disabled: bool) -> Iterator[None]:
    """Whether XLA leaves most of them out, while the block lasts."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", disabled)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def compile_quickly() -> Iterator[None]:
    """For programs that run for milliseconds: optimising them takes half of the time. `make test`
    has it for all tests; slow ones run what users run."""
    with optimisations_disabled(True):
        yield


@pytest.fixture(scope="module")
def compile_well() -> Iterator[None]:
    """For comparisons as close as rounding: the order of sums is another without optimisations."""
    with optimisations_disabled(False):
        yield
