"""The ``CACHE_LAYER_*`` settings, and the one reader of the environment.

A setting is read when it is first used and again after it changed, so ``override_settings`` works.
"""

from __future__ import annotations

import os
from typing import Any, cast

from django.conf import settings as django_settings
from django.core.signals import setting_changed

PREFIX = "CACHE_LAYER_"


class Settings:
    """Names, types and defaults; each is ``CACHE_LAYER_<NAME>`` in Django's settings.

    Times are in seconds. Every number must be positive; the system checks report what is not.
    """

    #: The ``CACHES`` entry that ``get_cache``, the decorators and the manager use.
    ALIAS: str = "default"
    #: Most entries the memory side keeps, unless ``OPTIONS["MAX_ENTRIES"]`` says otherwise.
    MEMORY_MAX_ENTRIES: int = 10_000
    #: Longest wait for Redis to answer one command.
    OPERATION_TIMEOUT: float = 0.25
    #: Longest wait for a connection to Redis.
    CONNECT_TIMEOUT: float = 0.25
    #: Pause between two looks at a Redis that is down.
    PROBE_INTERVAL: float = 0.25
    #: Consecutive failures after which Redis is no longer asked.
    BREAKER_FAILURES: int = 2
    #: Most invalidations remembered during an outage before the whole prefix is dropped instead.
    JOURNAL_MAX_ENTRIES: int = 10_000
    #: Longest computation whose result may still be stored.
    LEASE_TTL: int = 60
    #: Pause before a function that raised is called again to renew a result.
    RENEWAL_PAUSE: float = 5.0
    #: Pause between two additions of this process's counters to those of all processes.
    METRICS_FLUSH_INTERVAL: float = 10.0
    #: Pause between two looks whether a near cache still hears of every change.
    NEAR_PING_INTERVAL: float = 0.5


class _Reader:
    """Keeps what it read: each cached call reads settings, and reading Django's is slow."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(django_settings, PREFIX + name, getattr(Settings, name))
        setattr(self, name, value)
        return value

    def forget(self, *, setting: str, **kwargs: Any) -> None:
        vars(self).pop(setting.removeprefix(PREFIX), None)


_reader = _Reader()
setting_changed.connect(_reader.forget)
settings = cast("Settings", _reader)


def cache_from_env(**overrides: Any) -> dict[str, Any]:
    """Build a ``CACHES`` entry from the environment.

    ``REDIS_URL``: a ``redis://``, ``rediss://`` or ``unix://`` URL, several separated by commas;
    unset or empty means memory only. ``CACHE_DEFAULT_TTL``: seconds, 300 when unset; ``0`` stores
    nothing (Django's rule) and ``none`` never expires. ``CACHE_KEY_PREFIX``: ``agent_service``
    when unset.

    ``overrides`` are keys of the entry (``TIMEOUT=60``, ``OPTIONS={...}``) and win over the
    environment. Nothing is raised here: a value that means nothing goes into the entry as it is,
    where ``manage.py check`` reports it; until then Django uses its own default for it.
    """
    entry: dict[str, Any] = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "TIMEOUT": _timeout(os.environ.get("CACHE_DEFAULT_TTL", "")),
        "KEY_PREFIX": os.environ.get("CACHE_KEY_PREFIX", "agent_service"),
    }
    urls = [url.strip() for url in os.environ.get("REDIS_URL", "").split(",") if url.strip()]
    if urls:
        entry["LOCATION"] = urls[0] if len(urls) == 1 else urls
    return entry | overrides


def _timeout(text: str) -> int | str | None:
    text = text.strip()
    if not text:
        return 300
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return text
