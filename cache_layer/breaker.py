"""The circuit breaker: decides when to stop asking a failing Redis and when to ask it again.

It does no I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Good probes in a row before Redis is trusted. More than one, so that commands which a hung
#: server still held when it woke up have run before anything is replayed.
GOOD_PROBES: Final = 2


class Breaker:
    """The state of a circuit: closed (Redis is asked), open (it is not), or draining in between.

    While the circuit is draining, writers bring Redis up to date and nobody reads from it. Callers
    hold their own lock around every method; attributes may be read without the lock.

    Args:
        failures: Returns the number of consecutive failures that open the circuit. A decisive
            failure (a timeout, a write whose outcome is unknown) opens it at once.
        clock: Returns the Unix time in seconds.
    """

    def __init__(self, failures: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._limit = failures
        self._clock = clock
        self._good_probes = 0
        self.closed = True
        self.draining = False
        #: Counts outages: connections of an earlier epoch are not used any more.
        self.epoch = 0
        #: Consecutive failures since Redis last answered, while the circuit is closed.
        self.failed = 0
        #: Why the circuit is not closed; empty while it is.
        self.reason = ""
        #: When it was last closed or opened, as a Unix time in seconds.
        self.since = clock()

    def failure(self, reason: str, *, decisive: bool) -> bool:
        """Count a failure of Redis; return whether it opened the circuit."""
        if not self.closed:
            return False
        self.failed += 1
        if not decisive and self.failed < self._limit():
            return False
        self.closed = False
        self.epoch += 1
        self.reason = reason
        self.since = self._clock()
        return True

    def success(self) -> None:
        """Set the count of failures to zero, because Redis answered."""
        self.failed = 0

    def probe(self, *, healthy: bool, reason: str = "") -> bool:
        """Count the result of a probe or of a drain; return whether Redis can be trusted again.

        ``reason`` says why Redis is not healthy, where that is known.
        """
        self._good_probes = self._good_probes + 1 if healthy else 0
        if not healthy:
            self.draining = False
            self.reason = reason or self.reason
        return self._good_probes >= GOOD_PROBES

    def drain(self) -> None:
        """Let writers ask Redis again."""
        self.draining = True
        self.epoch += 1

    def close(self) -> None:
        """Let everybody ask Redis again."""
        self.closed = True
        self.draining = False
        self.failed = 0
        self._good_probes = 0
        self.reason = ""
        self.since = self._clock()
