"""The ``CACHE_LAYER_*`` settings, and the function that builds a ``CACHES`` entry."""

from __future__ import annotations

import os
from typing import Any, Final

from cache_layer.aliases import Options
from cache_layer.app_settings import AppSettings

PREFIX: Final = "CACHE_LAYER_"


class Settings(AppSettings, prefix=PREFIX):
    """The names, types and defaults of the settings of cache_layer. Times are in seconds."""

    #: The ``CACHES`` entry that ``get_cache``, the decorators and the manager use.
    ALIAS: str = "default"
    #: Largest number of entries in memory, unless ``OPTIONS["MAX_ENTRIES"]`` gives another one.
    MEMORY_MAX_ENTRIES: int = 10_000
    #: Largest number of bytes in memory, of all aliases with the same LOCATION and OPTIONS.
    MEMORY_MAX_BYTES: int = 64 * 1024 * 1024
    #: Longest wait for Redis to answer one command.
    OPERATION_TIMEOUT: float = 0.25
    #: Longest wait for a connection to Redis.
    CONNECT_TIMEOUT: float = 0.25
    #: Pause between two probes of a Redis that does not answer.
    PROBE_INTERVAL: float = 0.25
    #: Number of consecutive failures after which Redis is not asked any more.
    BREAKER_FAILURES: int = 2
    #: Largest number of invalidations remembered during an outage. After more, Redis loses every
    #: key of the alias when it answers again.
    JOURNAL_MAX_ENTRIES: int = 10_000
    #: Longest computation whose result is stored.
    LEASE_TTL: int = 60
    #: Pause before a function that raised is called again to refresh a result.
    REFRESH_PAUSE: float = 5.0
    #: Pause between two additions of this process's counters to those of all processes.
    METRICS_FLUSH_INTERVAL: float = 10.0
    #: Pause between two checks that a near cache still receives Redis's invalidations.
    NEAR_PING_INTERVAL: float = 0.5
    #: Largest value that is stored or read, in bytes as they stand in Redis.
    MAX_VALUE_BYTES: int = 32 * 1024 * 1024
    #: Largest value after decompression by a ``COMPRESSOR``, in bytes.
    MAX_DECODED_BYTES: int = 128 * 1024 * 1024


settings: Final = Settings()


def options_of(params: Options) -> dict[str, Any]:
    """Return the ``OPTIONS`` of a ``CACHES`` entry; an empty dictionary where there are none."""
    return dict(params.get("OPTIONS") or {})


def cache_from_env(**overrides: object) -> dict[str, object]:
    """Build a ``CACHES`` entry from the environment.

    ``REDIS_URL`` is a ``redis://``, ``rediss://`` or ``unix://`` URL, or several separated by
    commas; unset or empty means memory only. ``CACHE_DEFAULT_TTL`` is a number of seconds, 300
    when unset; ``0`` stores nothing (Django's rule) and ``none`` never expires.
    ``CACHE_KEY_PREFIX`` is ``agent_service`` when unset.

    A value that cannot be used goes into the entry as it is, and ``manage.py check`` reports it;
    until it is corrected, Django uses its own default.

    Args:
        **overrides: Keys of the entry, such as ``TIMEOUT=60`` or ``OPTIONS={...}``, in place of
            what the environment says.

    Returns:
        The entry, for ``CACHES["default"]``.
    """
    entry: dict[str, object] = {
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
