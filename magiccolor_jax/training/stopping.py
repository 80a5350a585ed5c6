"""When to stop early: a signal, or a machine that is taken away."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class PreemptedError(BaseException):
    """Asked to stop before there was anything to save."""


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self):
        self.asked = False
        """Whether this process alone was asked; never true with several, which agree instead."""
        self.saves = False
        """Whether there is something to save: until then a signal breaks off at once."""

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """The first SIGTERM or SIGINT asks; a second SIGINT breaks off at once.

        With several processes SIGTERM is left to JAX's preemption service, through which all of
        them learn of it.

        Raises:
            PreemptedError: a signal came while there was nothing to save.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if not self.saves:
                raise PreemptedError
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = True

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
            return self.asked
        return multihost_utils.reached_preemption_sync_point(step)
