"""Django's settings for one Redis: an alias for each of Django's backends."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec
from typing import Any

DJANGO_BACKENDS = {
    "django-redis": "django_redis.cache.RedisCache",
    "Django": "django.core.cache.backends.redis.RedisCache",
    "django-vcache": "django_vcache.backend.ValkeyCache",
}

#: Connections that each library with a pool may open.
POOL = 2000


def configure(url: str, *, near: bool = False) -> None:
    """Set Django up; with *near*, caches that can do so also keep values in this process."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django
    from django.apps import apps
    from django.conf import settings

    if apps.ready:
        return
    ours: dict[str, Any] = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": "ours",
    }
    if near:
        ours["OPTIONS"] = {"NEAR_CACHE": True}
    settings.CACHES = {
        "default": ours,
        "memory": {"BACKEND": "cache_layer.backends.ResilientCache"},
        "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        **{
            name: {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": name}
            for name, backend in DJANGO_BACKENDS.items()
        },
    }
    # redis-py's default pool refuses the hundred-and-first call at once.
    settings.CACHES["Django"]["OPTIONS"] = {"max_connections": POOL}
    settings.CACHES["django-redis"]["OPTIONS"] = {
        "CONNECTION_POOL_KWARGS": {"max_connections": POOL}
    }
    careful = "django-redis, 250 ms timeouts, IGNORE_EXCEPTIONS"
    settings.CACHES[careful] = {
        **settings.CACHES["django-redis"],
        "OPTIONS": {
            "SOCKET_TIMEOUT": 0.25,
            "SOCKET_CONNECT_TIMEOUT": 0.25,
            "IGNORE_EXCEPTIONS": True,
        },
    }
    if near:
        settings.CACHES["django-vcache"]["OPTIONS"] = {"CLIENT_SIDE_CACHE": {"ENABLED": True}}
    if find_spec("cacheops"):
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "cacheops"]
        settings.CACHEOPS_REDIS = url
        settings.CACHEOPS = {"auth.user": {"ops": (), "timeout": 600}}
    # Logs of contestants are not part of the tables.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    django.setup()
