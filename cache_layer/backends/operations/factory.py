"""Turns the caller's arguments into operations: full keys, encoded values, milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.backends.context import KeyTemplate, Lease
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.batches import DropMany, GetMany, SetMany
from cache_layer.backends.operations.leases import Fill, GetOrLease, Release
from cache_layer.backends.operations.numbers import Increment
from cache_layer.backends.operations.scans import STEP, Clear, DropPattern, ScanKeys, ScanPage
from cache_layer.backends.operations.single import (
    Add,
    Drop,
    Expire,
    Get,
    HasKey,
    IsMissing,
    Remaining,
    Rename,
    Set,
    SetExpired,
)
from cache_layer.conf import settings
from cache_layer.exceptions import CacheLayerError

if TYPE_CHECKING:
    from cache_layer.backends.resilient import ResilientCache

#: Redis counts milliseconds in 64 bits; this is some 200 million years.
LONGEST = 2**62


class Operations:
    """Makes operations for one backend and one namespace (``""``: none).

    Keys are validated as Django's own backends do. A timeout is in seconds: ``DEFAULT_TIMEOUT``
    is the alias's, None never expires, zero or less removes the key or stores nothing.
    """

    def __init__(self, backend: ResilientCache, namespace: str = "") -> None:
        self._backend = backend
        self._prefix = f"{namespace}:" if namespace else ""
        self._codec = backend.state.codec
        #: What each operation is given.
        self.context = backend.context_of(namespace)
        #: What stands before every key, if that is always the same.
        self.before = (
            f"{backend.key_prefix}:{backend.version}:{self._prefix}"
            if self.context.steady
            else None
        )

    def key(self, key: Any, version: int | None) -> str:
        """Return the full key."""
        if version is None and self.before is not None:
            full = f"{self.before}{key}"
            self._backend.validate_key(full)
            return full
        if self._prefix:
            key = f"{self._prefix}{key}"
        return self._backend.make_and_validate_key(key, version=version)

    def keys(self, keys: Iterable[Any], version: int | None) -> list[str]:
        """Return several full keys."""
        if version is not None or self.before is None:
            return [self.key(key, version) for key in keys]
        before = self.before
        full = [f"{before}{key}" for key in keys]
        self._backend.validate_keys(full)
        return full

    def get(self, key: Any, default: Any, version: int | None) -> Get:
        """Return the value of a key, or the default."""
        return Get(self.context, self.key(key, version), default)

    def get_many(self, keys: Iterable[Any], version: int | None) -> Operation[dict[Any, Any]]:
        """Return those of the keys that hold a value, with it."""
        names = list(dict.fromkeys(keys))
        return GetMany(self.context, self.keys(names, version), names)

    def has_key(self, key: Any, version: int | None) -> Operation[bool]:
        """Tell whether a key holds a value."""
        return HasKey(self.context, self.key(key, version))

    def remaining(self, key: Any, version: int | None) -> Operation[int | None]:
        """Return the milliseconds left, -1 for ever, None when missing."""
        return Remaining(self.context, self.key(key, version))

    def set(self, key: Any, value: Any, timeout: Any, version: int | None) -> Operation[bool]:
        """Store a value; the result tells whether it is stored."""
        full = self.key(key, version)
        data = self._codec.encode(full, value)
        milliseconds = self.milliseconds(timeout)
        if milliseconds is not None and milliseconds <= 0:
            return SetExpired(self.context, full)
        return Set(self.context, full, data, milliseconds)

    def add(self, key: Any, value: Any, timeout: Any, version: int | None) -> Operation[bool]:
        """Store a value where there is none; the result tells whether there was none."""
        full = self.key(key, version)
        data = self._codec.encode(full, value)
        milliseconds = self.milliseconds(timeout)
        if milliseconds is not None and milliseconds <= 0:
            return IsMissing(self.context, full)
        return Add(self.context, full, data, milliseconds)

    def set_many(
        self, entries: Mapping[Any, Any], timeout: Any, version: int | None
    ) -> Operation[Any]:
        """Store several values; the result is a list of full keys that failed, or a count."""
        milliseconds = self.milliseconds(timeout)
        full = dict(zip(self.keys(entries, version), entries.values(), strict=True))
        if milliseconds is not None and milliseconds <= 0:
            return DropMany(self.context, list(full))
        data = {key: self._codec.encode(key, value) for key, value in full.items()}
        return SetMany(self.context, data, milliseconds)

    def delete(self, key: Any, version: int | None) -> Operation[bool]:
        """Delete a key; the result tells whether it held a value."""
        return Drop(self.context, self.key(key, version))

    def delete_many(self, keys: Iterable[Any], version: int | None) -> Operation[int]:
        """Delete keys; the result is how many held a value."""
        return DropMany(self.context, self.keys(keys, version))

    def expire(self, key: Any, timeout: Any, version: int | None) -> Operation[bool]:
        """Change the expiry of a key; the result tells whether it held a value."""
        full = self.key(key, version)
        milliseconds = self.milliseconds(timeout)
        if milliseconds is not None and milliseconds <= 0:
            return Drop(self.context, full)
        return Expire(self.context, full, milliseconds)

    def increment(
        self,
        key: Any,
        amount: int,
        version: int | None,
        *,
        creates: bool = False,
        timeout: Any = DEFAULT_TIMEOUT,
    ) -> Operation[int]:
        """Add to an integer; see ``Increment``."""
        milliseconds = self.milliseconds(timeout)
        if creates and milliseconds is not None:
            # A key that must not live still has to be counted once; a millisecond is the least.
            milliseconds = max(1, milliseconds)
        return Increment(self.context, self.key(key, version), amount, creates, milliseconds)

    def rename(self, key: Any, version: int, delta: int) -> Operation[bool]:
        """Move a value to another version; the result tells whether there was one."""
        return Rename(self.context, self.key(key, version), self.key(key, version + delta))

    def get_or_lease(self, key: Any, version: int | None) -> GetOrLease:
        """Return the value of a key, or a ``Lease``."""
        lease_time = max(1, int(settings.LEASE_TTL * 1000))
        return GetOrLease(self.context, self.key(key, version), lease_time)

    def fill(
        self, key: Any, value: Any, lease: Lease, timeout: Any, version: int | None
    ) -> Operation[bool]:
        """Store a value under a lease; the result tells whether it is stored."""
        full = self.key(key, version)
        data = self._codec.encode(full, value)
        milliseconds = self.milliseconds(timeout)
        if milliseconds is not None and milliseconds <= 0:
            return Release(self.context, full, lease)
        return Fill(self.context, full, lease, data, milliseconds)

    def release(self, key: Any, lease: Lease, version: int | None) -> Operation[bool]:
        """Give a lease back."""
        return Release(self.context, self.key(key, version), lease)

    def scan(self, pattern: str, version: int | None, count: int) -> Operation[list[str]]:
        """Return the full keys that match a pattern; ``strip`` takes the prefix off."""
        return ScanKeys(self.context, self._pattern(pattern, version), max(1, count))

    def scan_page(
        self, pattern: str, version: int | None, count: int, cursor: int
    ) -> Operation[tuple[int, list[str]]]:
        """Return where to go on, 0 at the end, and some of the full keys that match a pattern."""
        return ScanPage(self.context, self._pattern(pattern, version), max(1, count), cursor)

    def delete_pattern(
        self, pattern: str, version: int | None, count: int = STEP
    ) -> Operation[int]:
        """Delete the keys that match a pattern; the result is how many held a value."""
        return DropPattern(self.context, self._pattern(pattern, version), max(1, count))

    def clear(self) -> Operation[int]:
        """Delete every key: of the namespace, or of the alias in all versions."""
        if self._prefix:
            return self.delete_pattern("*", None)
        if self.context.keyspace is None:
            raise CacheLayerError(
                "This cache cannot be cleared: its KEY_FUNCTION does not leave the key as it is, "
                "so its keys cannot be told from others."
            )
        return Clear(self.context, self.context.keyspace)

    def strip(self, keys: Iterable[str], version: int | None) -> list[str]:
        """Return the caller's keys of full keys."""
        around = self._surroundings(version)
        start = len(self._prefix)
        return [around.strip(key)[start:] for key in keys]

    def _pattern(self, pattern: str, version: int | None) -> str:
        return self._surroundings(version).pattern(f"{self._prefix}{pattern}")

    def _surroundings(self, version: int | None) -> KeyTemplate:
        backend = self._backend
        return KeyTemplate.of(
            backend.key_func, backend.key_prefix, backend.version if version is None else version
        )

    def milliseconds(self, timeout: Any) -> int | None:
        """Return Django's timeout in milliseconds; None never expires."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self._backend.default_timeout
        if timeout is None:
            return None
        if timeout <= 0:
            return 0
        return min(LONGEST, max(1, int(timeout * 1000)))
