# ruff: noqa: D102 - the methods of an operation are described in ``operations.base``
"""The counters of all processes, added up in a Redis hash.

The hash is beside the alias's keys, not among them: no scan finds it and no clear drops it. It
expires a week after the last process added to it.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from cache_layer import metrics
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Operation, Steps, raw
from cache_layer.conf import settings
from cache_layer.exceptions import CacheLayerError

if TYPE_CHECKING:
    from cache_layer.backends.resilient import ResilientCache

_LIFE: Final = 7 * 24 * 3600 * 1000

_due = 0.0


class NoSharedCountersError(CacheLayerError):
    """There is no Redis to add counters up in; they stay for the next time."""


class _Counting(Operation[Any]):
    __slots__ = ("deltas", "key")
    long = True

    def __init__(self, backend: ResilientCache, deltas: Mapping[str, int]) -> None:
        self.context = backend.context
        self.key = raw(f"cache_layer:counters:{backend.key_prefix}")
        self.deltas = deltas

    def in_memory(self, store: MemoryStore) -> Any:
        raise NoSharedCountersError("Redis cannot be used, so counters cannot be added up in it.")


class AddCounts(_Counting):
    """Add to counters, all or none."""

    __slots__ = ()

    def steps(self) -> Steps[None]:
        additions = [("HINCRBY", self.key, name, n) for name, n in self.deltas.items()]
        for reply in (yield [*additions, ("PEXPIRE", self.key, _LIFE)]):
            if isinstance(reply, Exception):
                raise NoSharedCountersError(str(reply)) from reply


class LoadCounts(_Counting):
    """Return every counter."""

    __slots__ = ()
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

    def __init__(self, backend: ResilientCache) -> None:
        self._backend = backend

    def add_counts(self, deltas: Mapping[str, int]) -> None:
        """See ``metrics.SharedStore.add_counts``."""
        self._backend.run(AddCounts(self._backend, deltas))

    def load_counts(self) -> Mapping[str, int]:
        """See ``metrics.SharedStore.load_counts``."""
        found: dict[str, int] = self._backend.run(LoadCounts(self._backend, {}))
        return found


def flush_when_due(backend: ResilientCache) -> None:
    """Add this process's counters to those of all, now and then.

    Called when Django closes its caches: after a request and after a Celery task, when nobody
    waits any more. Counters are the process's, so only the alias of the layer takes them.
    """
    global _due
    now = time.monotonic()
    # One that was looked up and not used may not even be able to work.
    if now < _due or "state" not in vars(backend):
        return
    alias = settings.ALIAS
    # A wrong alias is for the system checks to report, not for the end of a request.
    if alias not in caches.settings or caches[alias] is not backend:
        return
    _due = now + settings.METRICS_FLUSH_INTERVAL
    flush(backend)


def flush(backend: ResilientCache) -> None:
    """Add this process's counters to those of all, where there is a Redis."""
    if backend.state.describe()["state"] == "redis":
        try:
            metrics.flush(SharedCounters(backend))
        except NoSharedCountersError:
            # Redis went away meanwhile; nothing is lost.
            return


def _flush_at_exit() -> None:
    from cache_layer.backends.resilient import ResilientCache

    try:
        backend = caches[settings.ALIAS]
    except ImproperlyConfigured:
        return
    if isinstance(backend, ResilientCache):
        flush(backend)


atexit.register(_flush_at_exit)
