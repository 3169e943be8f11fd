"""The circuit: when to stop asking a Redis that fails, and when to ask again. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Good probes in a row before Redis is trusted. More than one, so that commands which a hung
#: server still held when it woke up have run before anything is replayed.
GOOD_PROBES: Final = 2


class Breaker:
    """The state of a circuit: closed (Redis is asked), open (it is not), or draining in between.

    A draining circuit lets writers bring Redis up to date, and nobody read. Callers hold a lock of
    their own around every method; attributes may be read without it.

    Args:
        failures: returns how many failures in a row open the circuit. A decisive failure (a
            timeout, a write whose outcome is unknown) opens it at once.
        clock: returns the Unix time in seconds.
    """

    def __init__(self, failures: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._limit = failures
        self._clock = clock
        self._good_probes = 0
        self.closed = True
        self.draining = False
        #: Counts outages: connections of an earlier epoch are not used any more.
        self.epoch = 0
        #: Failures in a row while closed.
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
        self._good_probes = 0
        return True

    def success(self) -> None:
        """Begin to count failures anew: Redis answered."""
        self.failed = 0

    def probe(self, *, healthy: bool, reason: str = "") -> bool:
        """Count a probe's result, or the end of a draining; return whether to trust Redis again.

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
        self.reason = ""
        self.since = self._clock()
