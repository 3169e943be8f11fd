# ruff: noqa: D102 - the methods of an operation are described in ``operations.base``
"""The counters of all processes, added up in a Redis hash.

The hash is under the alias's prefix, beside its keys and not among them: no scan finds it and no
clear drops it. It expires a week after a process last added to it.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TypeVar

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from cache_layer import metrics
from cache_layer.backends.alias import CacheAlias
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Operation, Refusal, Steps, raw
from cache_layer.conf import settings
from cache_layer.exceptions import CacheLayerError

T = TypeVar("T")

#: The name of this feature in the log and the metrics, if Redis refuses it.
_WHAT: Final = "counters"

#: Milliseconds.
_LIFETIME: Final = 7 * 24 * 3600 * 1000

#: Time of the next flush of counters, on the monotonic clock.
_due = 0.0


class NoSharedCountersError(CacheLayerError):
    """Redis cannot be used to add counters up; they stay in the process until it can."""


class _Counting(Operation[T]):
    __slots__ = ("deltas", "key")
    long = True

    def __init__(self, backend: CacheAlias, deltas: Mapping[str, int]) -> None:
        self.context = backend.context
        self.key = raw(backend.own_key("counters"))
        self.deltas = deltas

    def in_memory(self, store: MemoryStore) -> T:
        raise NoSharedCountersError("Redis cannot be used, so counters cannot be added up in it.")


class AddCounts(_Counting[None]):
    """Add to counters, all or none."""

    __slots__ = ()
    refusal = Refusal.PASSED

    def steps(self) -> Steps[None]:
        additions = [("HINCRBY", self.key, name, n) for name, n in self.deltas.items()]
        for reply in (yield [*additions, ("PEXPIRE", self.key, _LIFETIME)]):
            if isinstance(reply, Exception):
                raise NoSharedCountersError(str(reply)) from reply


class LoadCounts(_Counting[dict[str, int]]):
    """Return every counter."""

    __slots__ = ()
    refusal = Refusal.PASSED
    writes = False

    def steps(self) -> Steps[dict[str, int]]:
        (reply,) = yield [("HGETALL", self.key)]
        if isinstance(reply, Exception):
            raise NoSharedCountersError(str(reply)) from reply
        return {name.decode(): int(n) for name, n in reply.items()}


class SharedCounters:
    """The ``metrics.SharedStore`` of a backend.

    Both methods raise ``NoSharedCountersError`` while Redis cannot be used.
    """

    def __init__(self, backend: CacheAlias) -> None:
        self._backend = backend

    def add_counts(self, deltas: Mapping[str, int]) -> None:
        """See ``metrics.SharedStore.add_counts``."""
        self._backend.run(AddCounts(self._backend, deltas))

    def load_counts(self) -> Mapping[str, int]:
        """See ``metrics.SharedStore.load_counts``."""
        return self._backend.run(LoadCounts(self._backend, {}))


def flush_when_due(backend: CacheAlias) -> None:
    """Add this process's counters to those of all, every ``METRICS_FLUSH_INTERVAL`` seconds.

    Django calls this when it closes its caches, after a request and after a Celery task, when no
    user waits. Only the alias named by ``CACHE_LAYER_ALIAS`` stores the counters of the process.
    """
    global _due
    now = time.monotonic()
    # A backend that was never used may have mistakes in its entry.
    if now < _due or "store" not in vars(backend):
        return
    alias = settings.ALIAS
    # A wrong alias is for the system checks to report, not for the end of a request.
    if alias not in caches.settings or caches[alias] is not backend:
        return
    _due = now + settings.METRICS_FLUSH_INTERVAL
    flush(backend)


def flush(backend: CacheAlias) -> None:
    """Add this process's counters to those of all, where there is a Redis."""
    circuit = backend.store.circuit
    if circuit.breaker.closed and _WHAT not in circuit.refused:
        try:
            metrics.flush(SharedCounters(backend))
        except NoSharedCountersError as error:
            # Otherwise Redis failed in between. No count is lost.
            if isinstance(error.__cause__, Exception):
                circuit.switch_off(_WHAT, error.__cause__)


def _flush_at_exit() -> None:
    # A wrong entry is for the system checks to report, not for the end of a process.
    with suppress(ImproperlyConfigured, ImportError):
        backend = caches[settings.ALIAS]
        if isinstance(backend, CacheAlias):
            flush(backend)


atexit.register(_flush_at_exit)
