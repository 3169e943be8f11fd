"""The stores of this process: one for each LOCATION and OPTIONS, shared by aliases.

Django makes a backend instance for each thread and task, which must share memory, circuit and
connections.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from cache_layer.aliases import Observe
from cache_layer.backends.alias import CacheAlias
from cache_layer.backends.encoding import Codec
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near.cache import NearCache, NearOptions
from cache_layer.backends.operations.base import raw
from cache_layer.backends.recovery import Circuit, clean_mark
from cache_layer.backends.store import Store
from cache_layer.conf import PREFIX, options_of, settings
from cache_layer.redact import without_password
from cache_layer.signals import cache_state_changed

logger = logging.getLogger("cache_layer")

_stores: dict[str, Store] = {}
_lock = threading.Lock()
_observer: Callable[[object], Observe] | None = None


def observe_calls(observer: Callable[[object], Observe] | None) -> None:
    """Let the calls of stores that are made from now on be observed.

    Args:
        observer: Called with the LOCATION of each store; None to observe no more.
    """
    global _observer
    _observer = observer


def store_for(
    location: object, params: dict[str, object], backend: CacheAlias, sender: type[BaseCache]
) -> Store:
    """Return the store of a ``CACHES`` entry, made at first use.

    Args:
        location: The entry's LOCATION.
        params: The entry.
        backend: An instance of the entry's backend.
        sender: The class that sends ``cache_state_changed``.

    Raises:
        ImproperlyConfigured: The entry has a mistake, or Redis's client is not installed.
    """
    options = options_of(params)
    slot = cluster_hash_tag(options, backend) if location else ""
    key = repr((location or "", sorted(options.items()), slot))
    store = _stores.get(key)
    if store is None or store.closed:
        with _lock:
            store = _stores.get(key)
            if store is None or store.closed:
                store = _stores[key] = _make_store(location, params, backend, slot, sender)
    if (keyspace := backend.keyspace) is not None:
        store.circuit.keyspaces[keyspace] = None
    return store


def import_client() -> None:
    """Import Redis's client before the first call, because the import takes half a second.

    Raises:
        ImproperlyConfigured: It is not installed.
    """
    try:
        import cache_layer.backends.redis.async_transport  # noqa: F401
    except ImportError as missing:
        raise ImproperlyConfigured(
            "A cache with a LOCATION needs Redis's client: "
            f"pip install 'django-agent-sessions[redis]' ({missing})."
        ) from missing


def spreading_client(options: dict[str, object]) -> str:
    """Return the class in ``OPTIONS`` that spreads keys over several servers, or nothing.

    Raises:
        ImproperlyConfigured: Redis's client is not installed.
        ImportError: A class cannot be imported.
    """
    import_client()
    from cache_layer.backends.redis.transport import spreading_client

    return spreading_client(options)


def cluster_hash_tag(options: dict[str, object], backend: BaseCache) -> str:
    """Return the hash tag of an alias on a Redis Cluster, which puts all its keys on one slot.

    Elsewhere it is empty. Aliases must have the same hash tag to share connections.

    Raises:
        ImproperlyConfigured: The key prefix has no hash tag, or Redis's client is not installed.
        ImportError: The connection factory cannot be imported.
    """
    if "CONNECTION_FACTORY" not in options:
        return ""
    import_client()
    from cache_layer.backends.redis.cluster import hash_tag, is_clustered

    return hash_tag(backend) if is_clustered(options) else ""


def _make_store(
    location: object,
    params: dict[str, object],
    backend: CacheAlias,
    slot: str,
    sender: type[BaseCache],
) -> Store:
    options = options_of(params)
    limit = options.get("MAX_ENTRIES")
    codec = Codec(options)
    memory = MemoryStore(
        lambda: settings.MEMORY_MAX_ENTRIES if limit is None else int(limit),
        lambda: settings.MEMORY_MAX_BYTES,
    )
    circuit = Circuit(memory.lock, has_redis=bool(location))
    if not location:
        return Store(codec, memory, circuit)
    import_client()
    from cache_layer.backends.near.tracking import Tracking
    from cache_layer.backends.redis.async_transport import AsyncTransport
    from cache_layer.backends.redis.handshake import ServerIdentity
    from cache_layer.backends.redis.observed import ObservedAsyncTransport, ObservedTransport
    from cache_layer.backends.redis.transport import Transport

    probe_key = backend.own_key("probe")

    def new_server() -> ServerIdentity:
        return ServerIdentity(
            # Values that cannot be computed again are never dropped.
            trust_after_restart=bool(options.get("KEEP_AFTER_RESTART"))
            or options.get("ON_OUTAGE") == "raise",
            clustered=bool(slot),
            marks=lambda: list(map(clean_mark, list(circuit.keyspaces))),
            probe_key=raw(probe_key),
            switch_off=circuit.switch_off,
        )

    arguments = location, params, backend, probe_key, new_server
    if _observer is None:
        transport = Transport(*arguments)
        async_transport = AsyncTransport(transport, circuit.breaker)
    else:
        observe = _observer(location)
        transport = ObservedTransport(observe, *arguments)
        async_transport = ObservedAsyncTransport(observe, transport, circuit.breaker)
    near = tracking = None
    near_options = NearOptions.of(options.get("NEAR_CACHE"))
    if near_options is not None:
        near = NearCache(near_options)
        tracking = Tracking(near, transport, lambda: circuit.breaker.closed, circuit.switch_off)
    return Store(
        codec,
        memory,
        circuit,
        transport=transport,
        async_transport=async_transport,
        near=near,
        tracking=tracking,
        announce=partial(_announce, sender, _readable(location), options.get("ON_OUTAGE")),
    )


def _readable(location: Any) -> str:
    urls = location.split(",") if isinstance(location, str) else location
    return ", ".join(str(without_password(url)) for url in urls)


def _announce(
    sender: type[BaseCache], location: str, policy: object, description: dict[str, object]
) -> None:
    """Log and signal that Redis, or what ``ON_OUTAGE`` says, answers from now on."""
    if description["state"] == "redis":
        # At the same level as the failure: Django prints no others by default.
        logger.warning("Redis at %s answers again; the cache uses it.", location)
    else:
        logger.warning(
            "Redis at %s cannot be used (%s); %s until it can.",
            location,
            description["reason"],
            "calls raise an error" if policy == "raise" else "the cache answers from memory",
        )
    # Django logs what a receiver raises.
    cache_state_changed.send_robust(sender, location=location, **description)


def _forget_decoded(*, setting: str, **kwargs: object) -> None:
    # Names may stand for other keys now.
    if setting == "CACHES" or setting.startswith(PREFIX):
        for store in list(_stores.values()):
            store.forget_decoded()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for store in _stores.values():
        store.after_fork()


setting_changed.connect(_forget_decoded)
os.register_at_fork(after_in_child=_after_fork)
