"""Django's sessions in a cache, without losing them while Redis cannot be used.

``SESSION_ENGINE = "cache_layer.sessions"``, over an alias with ``OPTIONS["ON_OUTAGE"] = "raise"``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.cache import SessionStore as CacheSessionStore
from django.core.cache.backends.base import BaseCache


class SessionStore(CacheSessionStore):
    """Raises what the cache raises, where Django's own store takes it for a missing session.

    A missing session makes Django delete the user's cookie, and so logs the user out for good.
    """

    _cache: BaseCache

    def load(self) -> dict[str, Any]:
        """Return the data of the session, and forget a key that has none.

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
