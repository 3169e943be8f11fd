# ruff: noqa: D102 - the methods of an operation are described in ``operations.base``
"""Finds out in the background that Redis can be used again, and brings it up to date.

While the circuit drains, each writer replays its own operation at once, and the recovery replays
the earlier entries of the journal. So the journal ends empty whatever the rate of writes, and no
call waits for more than its own round trips.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    Operation,
    OperationContext,
    Refusal,
    Steps,
    chunks,
    raw,
)
from cache_layer.backends.operations.patterns import KeyPatterns
from cache_layer.backends.operations.scans import sweep
from cache_layer.backends.redis.errors import RedisUnavailableError, is_refusal
from cache_layer.backends.refusals import FEATURES
from cache_layer.breaker import Breaker
from cache_layer.conf import settings
from cache_layer.exceptions import CommandRefusedError
from cache_layer.journal import Entries, Journal
from cache_layer.keyspace import Keyspace

if TYPE_CHECKING:
    # This import needs the extra ``redis``; a store without a LOCATION does not.
    from cache_layer.backends.redis.transport import Transport

logger = logging.getLogger("cache_layer")

#: Commands in one round trip.
_PIPELINE: Final = 10
#: Seconds without calls answered from memory after which probing ends, so that an unused cache
#: keeps no thread. The next such call begins it again.
_IDLE: Final = 60.0


class Circuit:
    """The circuit breaker of a store, with the journal of changes that Redis has not seen.

    Args:
        lock: Held around every change.
        has_redis: Whether the store has a Redis; without one the circuit is always open.
    """

    def __init__(self, lock: threading.RLock, *, has_redis: bool) -> None:
        self.lock = lock
        self.breaker = Breaker(lambda: settings.BREAKER_FAILURES)
        self.journal = self.new_journal()
        #: All keys of the aliases that share the store.
        self.keyspaces: dict[Keyspace, None] = {}
        #: Features that Redis refuses, with its reply.
        self.refused: dict[str, str] = {}
        if not has_redis:
            self.breaker.failure("no LOCATION is configured", decisive=True)

    def new_journal(self) -> Journal:
        """Return an empty journal."""
        return Journal(lambda: settings.JOURNAL_MAX_ENTRIES if self.lists_keys else sys.maxsize)

    def switch_off(self, what: str, reply: Exception) -> None:
        """Stop using a feature that Redis refuses, and log that once.

        Args:
            what: The name of the feature in ``refusals.FEATURES``.
            reply: The reply of Redis.
        """
        if what not in self.refused:
            self.refused[what] = str(reply)
            without = FEATURES[what].without
            logger.warning(
                "Redis refuses %s (%s); the cache does without: %s.", what, reply, without
            )

    def give_back(self, entries: Entries, reason: str = "") -> bool:
        """Remember entries again that were not replayed; return whether that opened the circuit.

        ``reason`` says why Redis failed; it is empty if Redis did not fail.
        """
        with self.lock:
            self.journal.give_back(entries)
            if self.breaker.closed:
                # The recovery has ended, so nobody else would replay them.
                return self.breaker.failure(reason or "an operation was cancelled", decisive=True)
            if reason:
                self.breaker.probe(healthy=False, reason=reason)
            return False

    def after_fork(self, lock: threading.RLock) -> None:
        """Reset to a closed circuit in a forked child."""
        self.lock = lock
        self.journal = self.new_journal()
        self.breaker.close()

    @property
    def lists_keys(self) -> bool:
        """Whether keys can be found by pattern, and so a keyspace emptied."""
        return "SCAN" not in self.refused


class Recovery(threading.Thread):
    """A daemon thread that probes Redis during one outage, replays the journal and ends.

    Args:
        circuit: The circuit, which the recovery closes.
        transport: Carries operations to Redis.
        memory: The memory side, emptied when Redis answers again.
        context: The context of the recovery's operations.
        recovered: Called once when Redis answers again.
    """

    def __init__(
        self,
        circuit: Circuit,
        transport: Transport,
        memory: MemoryStore,
        context: OperationContext,
        recovered: Callable[[], None],
    ) -> None:
        super().__init__(name="cache-layer-recovery", daemon=True)
        self._circuit = circuit
        self._transport = transport
        self._memory = memory
        self._context = context
        self._recovered = recovered
        self._stopped = threading.Event()
        self._complained = ""
        #: When a call was last answered from memory, on the monotonic clock.
        self.wanted_at = time.monotonic()
        #: Whether the thread has to end; changed under the circuit's lock.
        self.over = False

    def stop(self) -> None:
        """End the thread without recovering."""
        self._stopped.set()

    def run(self) -> None:
        """Probe until enough probes succeed, replay the journal, close the circuit."""
        with self._transport.server.recovering():
            if not self._recover():
                # Only this thread used the connections during the outage.
                self._transport.close()
                return
        self._recovered()

    def _recover(self) -> bool:
        while not self._stopped.wait(settings.PROBE_INTERVAL):
            with self._circuit.lock:
                if time.monotonic() - self.wanted_at > _IDLE:
                    self.over = True
                    return False
            try:
                if self._is_trusted() and self._is_prepared() and self._is_replayed():
                    return True
            except CommandRefusedError as error:
                self._fail(str(error))
                self._complain(f"Redis is back but refuses to be brought up to date: {error}")
            # If the thread died, memory would answer for ever.
            except Exception as error:  # noqa: BLE001
                self._fail(repr(error))
                self._complain(f"The attempt to use Redis again failed: {error!r}")
        return False

    def _fail(self, reason: str) -> None:
        with self._circuit.lock:
            self._circuit.breaker.probe(healthy=False, reason=reason)

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            logger.error(text)

    def _is_trusted(self) -> bool:
        self._transport.server.prepared = False
        try:
            self._transport.probe()
        except RedisUnavailableError as error:
            self._fail(error.reason)
            return False
        with self._circuit.lock:
            return self._circuit.breaker.probe(healthy=True)

    def _is_prepared(self) -> bool:
        """Drop stale keys from the server, and end the connections made before the outage."""
        transport, server = self._transport, self._transport.server
        # A connection that is made meanwhile may find another one.
        found = server.found
        try:
            if found == server.trusted:
                ended = transport.run(EndConnections(self._context, server.connections()))
                if ended is not None:
                    self._circuit.switch_off("CLIENT KILL", ended)
            if found and not server.trust_after_restart:
                transport.run(
                    PurgeKeyspaces(
                        self._context,
                        list(self._circuit.keyspaces),
                        found,
                        is_trusted=found == server.trusted,
                        drops=self._circuit.lists_keys,
                    )
                )
        except RedisUnavailableError as error:
            self._fail(error.reason)
            return False
        server.trusted = found
        # What is replayed, and read afterwards, goes to this server and to no other.
        server.prepared = True
        return True

    def _is_replayed(self) -> bool:
        """Replay the journal while writers replay their own operations; close the circuit."""
        circuit = self._circuit
        # Connections made before the outage may be dead without notice.
        self._transport.renew()
        with circuit.lock:
            circuit.breaker.drain()
            entries = circuit.journal.take()
        while True:
            try:
                self._transport.run(Replay(self._context, entries))
            except RedisUnavailableError as error:
                circuit.give_back(entries, error.reason)
                return False
            except BaseException as error:
                circuit.give_back(entries, repr(error))
                raise
            with circuit.lock:
                if not circuit.breaker.draining:
                    # A writer failed.
                    return False
                if not circuit.journal:
                    self._memory.clear()
                    circuit.breaker.close()
                    self.over = True
                    return True
                # A writer was cancelled before it had replayed its operation.
                entries = circuit.journal.take()


class Replay(Operation[None]):
    """Delete the keys that a journal remembered.

    Raises ``CommandRefusedError`` if Redis refuses, because nobody may read from it yet.
    """

    __slots__ = ("entries",)
    refusal = Refusal.ERROR
    long = True

    def __init__(self, context: OperationContext, entries: Entries) -> None:
        self.context = context
        self.entries = entries

    def steps(self) -> Steps[None]:
        keys = [key for changes in self.entries.values() for key in changes.keys]
        values = [key for changes in self.entries.values() for key in changes.values]
        deletions = [
            script([raw(key) for key in chunk])
            for script, which in ((lua.DROP, keys), (lua.DELETE_VALUES, values))
            for chunk in chunks(which)
        ]
        for start in range(0, len(deletions), _PIPELINE):
            yield deletions[start : start + _PIPELINE]
        for keyspace, changes in self.entries.items():
            if keyspace is not None and changes.everything:
                yield from _drop_keyspace(keyspace)
            elif changes.patterns:
                # One scan for all patterns, because a scan takes longer than all other steps.
                patterns = KeyPatterns(changes.patterns)
                yield from sweep(
                    patterns.common,
                    _callers_of(keyspace, patterns) if keyspace else patterns.matching,
                )


class EndConnections(Operation[Exception | None]):
    """End the connections made before the outage, by their ids, with all commands still in transit.

    If Redis refuses, the result is its reply: a command that is delivered late may then be
    executed.
    """

    __slots__ = ("ids",)
    refusal = Refusal.PASSED
    long = True

    def __init__(self, context: OperationContext, ids: list[int]) -> None:
        self.context = context
        self.ids = ids

    def steps(self) -> Steps[Exception | None]:
        replies = yield [("CLIENT", "KILL", "ID", number, "SKIPME", "yes") for number in self.ids]
        # An id whose connection has ended since is an error reply, too.
        return next((reply for reply in replies if is_refusal(reply)), None)


class PurgeKeyspaces(Operation[None]):
    """Drop all keys of some keyspaces from a server that may hold deleted values.

    The first process of the project to do so leaves a mark with the server's identity, so that the
    others do not drop values stored since then.

    Args:
        keyspaces: The keyspaces to drop.
        server: The server's identity.
        is_trusted: Whether a keyspace without a mark is left as it is.
        drops: Whether keys can be listed. If not, the keyspaces get their marks alone.
    """

    __slots__ = ("drops", "is_trusted", "keyspaces", "server")
    refusal = Refusal.ERROR
    long = True

    def __init__(
        self,
        context: OperationContext,
        keyspaces: Sequence[Keyspace],
        server: str,
        *,
        is_trusted: bool,
        drops: bool,
    ) -> None:
        self.context = context
        self.drops = drops
        self.keyspaces = keyspaces
        self.server = server.encode()
        self.is_trusted = is_trusted

    def steps(self) -> Steps[None]:
        for keyspace in self.keyspaces:
            mark = clean_mark(keyspace)
            (known,) = yield [("GET", mark)]
            if known != self.server:
                if self.drops and not (known is None and self.is_trusted):
                    yield from _drop_keyspace(keyspace)
                yield [("SET", mark, self.server)]


def clean_mark(keyspace: Keyspace) -> bytes:
    """Return the key that names the server process without stale keys of a keyspace."""
    digest = hashlib.sha256(keyspace.expression).hexdigest()[:16]
    return raw(f"{keyspace.reserved}clean:{digest}")


def _drop_keyspace(keyspace: Keyspace) -> Steps[None]:
    return sweep(keyspace.pattern, keyspace.owned)


def _callers_of(keyspace: Keyspace, patterns: KeyPatterns) -> Callable[[list[bytes]], list[bytes]]:
    """Return a function that selects callers' keys that match any of the patterns."""
    return lambda keys: keyspace.callers(patterns.matching(keys))
