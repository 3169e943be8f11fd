"""Finds out in the background that Redis is healthy again, and brings it up to date."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from cache_layer.backends.operations.replay import EndConnections, PurgeKeyspace, Replay
from cache_layer.backends.operations.scans import RefusedError
from cache_layer.backends.redis.errors import RedisUnavailableError
from cache_layer.conf import settings
from cache_layer.journal import Entries

if TYPE_CHECKING:
    from cache_layer.backends.state import RedisState

logger = logging.getLogger("cache_layer")

#: Replays that go on beside callers, before one that makes them wait: a process that writes all
#: the time would otherwise never find its journal empty.
_PASSES: Final = 5


class Recovery(threading.Thread):
    """A daemon thread that lives as long as one outage."""

    def __init__(self, state: RedisState) -> None:
        super().__init__(name="cache-layer-recovery", daemon=True)
        self._state = state

    def run(self) -> None:
        """Probe until Redis has earned trust, replay, close the circuit."""
        state = self._state
        server = state.transport.server
        server.begin_recovery()
        while not state.stopped.wait(settings.PROBE_INTERVAL):
            try:
                if self._trusted() and self._prepared() and self._replayed():
                    server.end_recovery()
                    state.announce()
                    return
            except RefusedError as error:
                logger.error("Redis is back but refuses to be brought up to date: %s", error)
            # A thread that died would leave the cache on memory for ever.
            except Exception:
                logger.exception("Looking whether Redis is back failed; trying again.")
        # What this thread opened after the state was closed.
        state.transport.close()

    def _trusted(self) -> bool:
        state = self._state
        try:
            state.transport.probe()
        except RedisUnavailableError as error:
            with state.lock:
                state.breaker.probe(healthy=False)
                state.breaker.reason = error.reason
            return False
        with state.lock:
            return state.breaker.probe(healthy=True)

    def _prepared(self) -> bool:
        state = self._state
        server = state.transport.server
        try:
            if server.found == server.trusted:
                state.transport.run(EndConnections(state.context, server.connections()))
            else:
                state.transport.run(
                    PurgeKeyspace(
                        state.context, list(state.scopes), server.found, state.transport.tag
                    )
                )
        except RedisUnavailableError:
            with state.lock:
                state.breaker.probe(healthy=False)
            return False
        server.trusted = server.found
        return True

    def _replayed(self) -> bool:
        state = self._state
        for _pass in range(_PASSES):
            with state.lock:
                if not len(state.journal):
                    state.close_circuit()
                    return True
                entries = state.journal.take()
            if not self._replay(entries):
                return False
        with state.lock:
            if not self._replay(state.journal.take()):
                return False
            state.close_circuit()
        return True

    def _replay(self, entries: Entries) -> bool:
        state = self._state
        replayed = False
        try:
            state.transport.run(Replay(state.context, entries))
            replayed = True
        except RedisUnavailableError:
            pass
        finally:
            if not replayed:
                with state.lock:
                    state.journal.give_back(entries)
                    state.breaker.probe(healthy=False)
        return replayed
