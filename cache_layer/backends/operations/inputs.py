"""What operations are made from: keys, timeouts, policies, and what an alias has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.backends.operations.base import OperationContext
from cache_layer.keyspace import KeyFunction

#: As in Django's API: anything that can be written may be a key, anything may be a value.
Key = Any
#: Django's: seconds, None for ever, or ``DEFAULT_TIMEOUT``.
Timeout = Any

#: Redis counts milliseconds in 64 bits; this is some 200 million years.
LONGEST = 2**62


class Alias(Protocol):
    """What the factories need of a ``CACHES`` entry's backend."""

    key_func: KeyFunction
    key_prefix: str
    version: int
    default_timeout: Timeout

    def context_of(self, namespace: str) -> OperationContext:
        """Return what operations under a namespace are given."""

    def make_and_validate_key(self, key: Key, version: int | None = None) -> str:
        """Return the full key; warn where Django does."""

    def validate_key(self, key: str) -> None:
        """Warn of a full key where Django does."""

    def validate_keys(self, keys: Sequence[str]) -> None:
        """Warn of full keys where Django does."""

    def is_odd(self, text: str) -> bool:
        """Return whether Django warns of keys with this text in them."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExpirationPolicy:
    """How long a cached result is kept and when it is refreshed.

    Args:
        ttl: Django's timeout.
        stale_ttl: Seconds after ``ttl`` in which a result is still served while it is refreshed.
        refresh_before: Seconds before the end of ``ttl`` from which on it is refreshed.
        jitter: Up to how many seconds are taken off ``ttl`` at random.
    """

    ttl: Timeout = DEFAULT_TIMEOUT
    stale_ttl: float = 0
    refresh_before: float = 0
    jitter: float = 0
