"""A Django cache that keeps answering when Redis does not.

The names are looked up when they are first used: Django imports this package before its settings
are complete.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_layer.functions.batches import cached_many
    from cache_layer.functions.decorators import cache_invalidate, cached
    from cache_layer.functions.invalidation import ainvalidate_tags, invalidate_tags
    from cache_layer.interface import FOREVER, ICache, SyncCache, get_cache, get_sync_cache
    from cache_layer.manager import RedisManager, get_redis_manager
    from cache_layer.pubsub import PubSub

__all__ = [
    "FOREVER",
    "ICache",
    "PubSub",
    "RedisManager",
    "SyncCache",
    "ainvalidate_tags",
    "cache_invalidate",
    "cached",
    "cached_many",
    "get_cache",
    "get_redis_manager",
    "get_sync_cache",
    "invalidate_tags",
]

_MODULES = {
    "PubSub": "pubsub",
    "cache_invalidate": "functions.decorators",
    "cached": "functions.decorators",
    "cached_many": "functions.batches",
    "ainvalidate_tags": "functions.invalidation",
    "invalidate_tags": "functions.invalidation",
    "RedisManager": "manager",
    "get_redis_manager": "manager",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'interface')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
