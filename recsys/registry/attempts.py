"""Calls to MLflow that may fail: an outage raises nothing, and costs the caller a share of its time at most."""

import math
import time
from collections.abc import Callable

from recsys.errors import RegistryError
from recsys.registry.client import registry_errors

# Share of the stream's time that an outage may cost at most.
SHARE_OF_TIME = 0.1


class Attempts:
    """Makes calls. After one that failed, the next is made only after a while, so that a hanging server costs little.

    Attributes:
        failure: why the last call failed; None if it succeeded.
    """

    def __init__(self) -> None:
        self.failure: RegistryError | None = None
        self._not_before = -math.inf  # monotonic seconds

    def make(self, call: Callable[[], object]) -> bool:
        """Make a call to MLflow, unless it is too early; returns whether it was made and succeeded.

        Only an outage or a refusal is kept as `failure`; a fault of a program is raised, see `registry_errors`.
        """

        def called() -> None:
            with registry_errors("MLflow failed"):
                call()

        return self.pace(called)

    def pace(self, call: Callable[[], object]) -> bool:
        """The same for a call that turns MLflow's errors into RegistryError itself; other errors are raised."""
        start = time.monotonic()
        if start < self._not_before:
            return False
        try:
            call()
        except RegistryError as error:
            now = time.monotonic()
            self._not_before = now + (now - start) / SHARE_OF_TIME
            self.failure = error
            return False
        self.failure = None
        return True

    def hurry(self) -> None:
        """Make the next call at once."""
        self._not_before = -math.inf
