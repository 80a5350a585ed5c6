"""A trace of some steps, for TensorBoard's profiler."""

from pathlib import Path

import jax
from jax import Array


class Profile:
    """Traces the steps of a window, or what a resumed run still has of it."""

    def __init__(self, folder: Path, window: tuple[int, int] | None):
        """Args:
        folder: where the trace goes.
        window: first and last step, 1 being a training's first; None: no trace.
        """
        self.folder, self.window = folder, window
        self._tracing = False

    def before(self, step: int, running: Array) -> None:
        """Begins or ends the trace.

        Args:
            step: that is about to be launched.
            running: what the last one gives, waited for where it ends the window.
        """
        if self.window is None:
            return
        inside = self.window[0] <= step <= self.window[1]
        if inside and not self._tracing:
            jax.profiler.start_trace(str(self.folder))
            self._tracing = True
        elif self._tracing and not inside:
            jax.block_until_ready(running)
            self.stop()

    def stop(self) -> None:
        """Writes what was traced so far."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
