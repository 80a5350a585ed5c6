"""When to stop early: a signal, or a machine that is taken away."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stop:
    """Whether somebody asked to stop after the current step."""

    def __init__(self):
        self._asked = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """The first SIGTERM or SIGINT asks; a second SIGINT breaks off at once.

        With several processes SIGTERM is left to JAX's preemption service, through which all of
        them learn of it.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if self._asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._asked = True

        alone = jax.process_count() == 1
        heard = (signal.SIGTERM, signal.SIGINT) if alone else ()
        before = {number: signal.signal(number, ask) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self, step: int) -> bool:
        """Whether all processes stop after this step; each asks at each step."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
