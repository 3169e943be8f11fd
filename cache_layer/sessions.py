"""A session engine for Django that keeps sessions through an outage of Redis.

``SESSION_ENGINE = "cache_layer.sessions"``, over an alias with ``OPTIONS["ON_OUTAGE"] = "raise"``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.cache import SessionStore as CacheSessionStore
from django.core.cache.backends.base import BaseCache


class SessionStore(CacheSessionStore):
    """Raises the errors of the cache, which Django's own store treats as a missing session.

    For a missing session Django deletes the user's cookie, which logs the user out for good.
    """

    _cache: BaseCache

    def load(self) -> dict[str, Any]:
        """Return the data of the session. If there is none, forget the session key.

        Raises:
            CacheUnavailableError: Redis cannot be used.
        """
        return self._found(self._cache.get(self.cache_key))

    async def aload(self) -> dict[str, Any]:
        """See ``load()``."""
        return self._found(await self._cache.aget(await self.acache_key()))

    def _found(self, data: dict[str, object] | None) -> dict[str, Any]:
        if data is None:
            self._session_key = None
        return data or {}
