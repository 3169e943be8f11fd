"""The error of what only Redis can do, while Redis cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_layer.exceptions import CacheLayerError

if TYPE_CHECKING:
    from redis.exceptions import ConnectionError as _ConnectionError
else:
    try:
        from redis.exceptions import ConnectionError as _ConnectionError
    except ImportError:
        # Memory only.
        _ConnectionError = ConnectionError


class CacheUnavailableError(CacheLayerError, _ConnectionError):
    """Redis is needed and cannot be used: memory, which one process sees, would be no answer.

    It is a ``ConnectionError`` of redis-py too, so that code written for django-redis catches it.
    """
