"""The inputs of operations: keys, timeouts, policies, and the methods of an alias."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.backends.operations.base import OperationContext
from cache_layer.keyspace import KeyFunction

#: As in Django's API: any object that ``str()`` takes may be a key, any object a value.
Key = Any
#: A timeout of Django: seconds, None to never expire, or ``DEFAULT_TIMEOUT``.
Timeout = Any

#: Redis counts milliseconds in 64 bits; this is some 200 million years.
LONGEST = 2**62


class Alias(Protocol):
    """The methods of a backend that the factories need."""

    key_func: KeyFunction
    key_prefix: str
    version: int
    default_timeout: Timeout

    def context_of(self, namespace: str) -> OperationContext:
        """Return the context of operations under a namespace."""

    def make_and_validate_key(self, key: Key, version: int | None = None) -> str:
        """Return the full key; warn of the same keys as Django."""

    def validate_key(self, key: str) -> None:
        """Warn of the full key if Django does."""

    def validate_keys(self, keys: Sequence[str]) -> None:
        """Warn of full keys where Django does."""

    def is_odd(self, text: str) -> bool:
        """Return whether Django warns of keys with this text in them."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExpirationPolicy:
    """The lifetime of a cached result, and the time of its refresh.

    Args:
        ttl: Django's timeout.
        stale_ttl: Seconds after ``ttl`` in which a result is still served while it is refreshed.
        refresh_before: Seconds before the end of ``ttl`` from which on it is refreshed.
        jitter: Largest number of seconds taken off ``ttl`` at random.
    """

    ttl: Timeout = DEFAULT_TIMEOUT
    stale_ttl: float | None = None
    refresh_before: float | None = None
    jitter: float | None = None
