"""The manager: keys by pattern, many values at once, metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async

from cache_layer import metrics
from cache_layer.backends import NoSharedCountersError, ResilientCache, SharedCounters
from cache_layer.interface import Ttl, as_timeout, resilient_cache


class RedisManager:
    r"""Works on the keys of one alias: in Redis, and in memory while Redis cannot be used.

    Keys have their namespace and no prefix of the alias, so the result of ``scan_keys("users:*")``
    can be passed to ``mget``. Patterns are Redis's: ``*``, ``?``, ``[abc]``, ``[^a]``, ``[a-z]``,
    and ``\`` before a character that stands for itself.
    """

    def __init__(self, backend: ResilientCache) -> None:
        self._backend = backend
        self._make = backend.operations()

    async def scan_keys(self, pattern: str, count: int = 100) -> list[str]:
        """Return the keys that match a pattern, each once, in no order.

        Args:
            pattern: The pattern that the keys match.
            count: How many keys Redis looks at in one step, not how many are returned.
        """
        found = await self._backend.arun(self._make.scan(pattern, None, count))
        return self._make.strip(found, None)

    async def mget(self, keys: Iterable[str]) -> list[Any]:
        """Return the value of each key, None where there is none, in one round trip."""
        keys = list(keys)
        found = await self._backend.aget_many(keys)
        return [found.get(key) for key in keys]

    async def mset(self, mapping: Mapping[str, object], ttl: Ttl = None) -> bool:
        """Store several values in one round trip; return whether all are stored.

        Args:
            mapping: The values by key.
            ttl: Seconds, None for the alias's default timeout, or ``FOREVER``.

        Raises:
            UnsupportedValueError: One of the values cannot be stored exactly; none is stored.
        """
        refused = await self._backend.arun(self._make.set_many(mapping, as_timeout(ttl), None))
        return bool(refused == [])

    async def delete_by_pattern(self, pattern: str) -> int:
        """Delete the keys that match a pattern, in steps; return how many held a value."""
        return await self._backend.adelete_pattern(pattern)

    def get_metrics(self) -> dict[str, Any]:
        """Return the counters of this process and the state of the backend.

        ``hit_rate`` is in percent, ``metrics`` has ``"<namespace>:<event>"`` for hits, misses,
        sets, deletes and errors, and ``backend`` the ``state`` (``"redis"`` or ``"memory"``), its
        ``since`` (an aware datetime) and the ``reason``.
        """
        return {**metrics.snapshot(), "backend": self._backend.store.describe()}

    async def get_metrics_of_all_processes(self) -> dict[str, Any]:
        """Return the sums of the counters of all processes, with the newest counts of this process.

        The other processes add their counts every ``CACHE_LAYER_METRICS_FLUSH_INTERVAL`` seconds.
        While Redis cannot be used, this is ``get_metrics()``.
        """
        try:
            counted = await sync_to_async(metrics.snapshot_all)(SharedCounters(self._backend))
        except NoSharedCountersError:
            return self.get_metrics()
        return {**counted, "backend": self._backend.store.describe()}

    def get_hit_rate(self, namespace: str | None = None) -> float:
        """Return this process's hits in percent of reads; 0.0 when nothing was read.

        Args:
            namespace: The namespace to look at, ``""`` for reads without one, None for all reads.
        """
        return metrics.hit_rate(namespace)


async def get_redis_manager() -> RedisManager:
    """Return the manager of the alias that ``CACHE_LAYER_ALIAS`` names."""
    return RedisManager(resilient_cache())
