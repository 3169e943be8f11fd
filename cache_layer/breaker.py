"""When to stop asking a Redis that fails, and when to ask again. No I/O, no threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Good probes in a row before Redis is trusted. More than one, so that commands which a hung
#: server still held when it woke up have run before anything is replayed.
GOOD_PROBES: Final = 2


class Breaker:
    """Counts failures and good probes; ``closed`` tells whether Redis is to be asked.

    A decisive failure (a timeout, a write whose outcome is unknown) opens it at once, others when
    ``failures()`` of them came in a row. Callers hold a lock of their own around every method but
    the reading of attributes.
    """

    def __init__(self, failures: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._limit = failures
        self._clock = clock
        self._good_probes = 0
        self.closed = True
        #: Failures in a row while closed.
        self.failed = 0
        #: Why it is open; empty while closed.
        self.reason = ""
        #: When it last opened or closed, as a Unix time in seconds.
        self.since = clock()

    def failure(self, reason: str, *, decisive: bool) -> bool:
        """Take note that Redis failed; return True when that opened the circuit."""
        if not self.closed:
            return False
        self.failed += 1
        if not decisive and self.failed < self._limit():
            return False
        self.closed = False
        self.reason = reason
        self.since = self._clock()
        self._good_probes = 0
        return True

    def success(self) -> None:
        """Take note that Redis answered."""
        self.failed = 0

    def probe(self, healthy: bool) -> bool:
        """Take note of a probe's result; return True when Redis has earned trust again."""
        self._good_probes = self._good_probes + 1 if healthy else 0
        return self._good_probes >= GOOD_PROBES

    def close(self) -> None:
        """Let Redis be asked again."""
        self.closed = True
        self.failed = 0
        self.reason = ""
        self.since = self._clock()
