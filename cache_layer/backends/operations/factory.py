"""Turns the caller's arguments into operations: full keys, encoded values, milliseconds."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http.response import HttpResponseBase

from cache_layer.aliases import Value
from cache_layer.backends.encoding import ResultKey
from cache_layer.backends.operations.base import Operation, OperationContext, Single, raw
from cache_layer.backends.operations.batches import DeleteMany, GetMany, SetMany
from cache_layer.backends.operations.inputs import LONGEST, Alias, ExpirationPolicy, Key, Timeout
from cache_layer.backends.operations.leases import Claim, Fill, Lease, Release
from cache_layer.backends.operations.results import (
    ClaimRefresh,
    DeleteStale,
    ReadResult,
    StaleValue,
    StoreRefreshed,
)
from cache_layer.backends.operations.scans import STEP, Clear, DeletePattern, ScanKeys, ScanPage
from cache_layer.backends.operations.single import (
    Add,
    Delete,
    Expire,
    Get,
    HasKey,
    Increment,
    IsMissing,
    Remaining,
    Rename,
    Set,
    SetExpired,
)
from cache_layer.backends.operations.together import ReadResults, Together
from cache_layer.conf import settings
from cache_layer.exceptions import CacheLayerError, UnsupportedValueError
from cache_layer.keyspace import KeyTemplate

logger = logging.getLogger("cache_layer")
#: Classes of responses that a warning has named already.
_warned: set[str] = set()


class OperationFactory:
    """Makes operations for one alias and one namespace.

    The docstring of a method describes the operation that it returns.

    Keys are validated as Django's own backends do. A timeout is in seconds: ``DEFAULT_TIMEOUT``
    is the alias's, None never expires, zero or less removes the key or stores nothing.

    Args:
        alias: The backend.
        context: The context of each operation; its namespace and a colon stand before every key.
    """

    context: OperationContext

    def __init__(self, alias: Alias, context: OperationContext) -> None:
        self._alias = alias
        self._prefix = f"{context.namespace}:" if context.namespace else ""
        self._namespace = context.namespace
        if context.steady:
            self.context = context
        self._codec = context.codec
        #: The text before every key, if it is always the same.
        self.before = (
            f"{alias.key_prefix}:{alias.version}:{self._prefix}" if context.steady else None
        )

    def __getattr__(self, name: str) -> OperationContext:
        if name != "context":
            raise AttributeError(name)
        # The keys of the alias may depend on the caller, such as the tenant of a request.
        return self._alias.context_of(self._namespace)

    def key(self, key: Key, version: int | None = None) -> str:
        """Return the full key."""
        if version is None and self.before is not None:
            full = f"{self.before}{key}"
            self._alias.validate_key(full)
            return full
        if self._prefix:
            key = f"{self._prefix}{key}"
        return self._alias.make_and_validate_key(key, version=version)

    def keys(self, keys: Iterable[Key], version: int | None) -> list[str]:
        """Return several full keys."""
        if version is not None or self.before is None:
            return [self.key(key, version) for key in keys]
        before = self.before
        full = [f"{before}{key}" for key in keys]
        self._alias.validate_keys(full)
        return full

    def get(self, key: Key, default: Value, version: int | None) -> Get:
        """Return the value of a key, or the default."""
        return Get(self.context, self.key(key, version), default)

    def get_many(self, keys: Iterable[Key], version: int | None) -> Operation[dict[Key, Value]]:
        """Return the values of the keys that hold one, by key."""
        names = list(dict.fromkeys(keys))
        return GetMany(self.context, self.keys(names, version), names)

    def has_key(self, key: Key, version: int | None) -> Operation[bool]:
        """Tell whether a key holds a value."""
        return HasKey(self.context, self.key(key, version))

    def remaining(self, key: Key, version: int | None) -> Operation[int | None]:
        """Return the milliseconds left, -1 if the key never expires, None if it is missing."""
        return Remaining(self.context, self.key(key, version))

    def set(self, key: Key, value: Value, timeout: Timeout, version: int | None) -> Operation[bool]:
        """Store a value; the result tells whether it is stored.

        A response that cannot be stored is removed instead: ``cache_page`` serves it uncached.

        Raises:
            UnsupportedValueError: A value that is not a response cannot be stored exactly.
        """
        full = self.key(key, version)
        try:
            data = self._codec.encode(full, value)
        except UnsupportedValueError as error:
            if not isinstance(value, HttpResponseBase):
                raise
            _warn_once(type(value), str(error))
            return SetExpired(self.context, full)
        milliseconds = self.milliseconds(timeout)
        if milliseconds == 0:
            return SetExpired(self.context, full)
        return Set(self.context, full, data, milliseconds)

    def add(self, key: Key, value: Value, timeout: Timeout, version: int | None) -> Operation[bool]:
        """Store a value if the key is missing; the result tells whether it was."""
        full = self.key(key, version)
        data = self._codec.encode(full, value)
        milliseconds = self.milliseconds(timeout)
        if milliseconds == 0:
            return IsMissing(self.context, full)
        return Add(self.context, full, data, milliseconds)

    def set_many(
        self, entries: Mapping[Key, Value], timeout: Timeout, version: int | None
    ) -> Operation[Value]:
        """Store several values; the result is a list of full keys that failed, or a count."""
        milliseconds = self.milliseconds(timeout)
        full = dict(zip(self.keys(entries, version), entries.values(), strict=True))
        if milliseconds == 0:
            return DeleteMany(self.context, list(full))
        data = {key: self._codec.encode(key, value) for key, value in full.items()}
        return SetMany(self.context, data, milliseconds)

    def delete(self, key: Key, version: int | None) -> Operation[bool]:
        """Delete a key; the result tells whether it held a value."""
        return Delete(self.context, self.key(key, version))

    def delete_many(self, keys: Iterable[Key], version: int | None = None) -> Operation[int]:
        """Delete keys; the result is how many held a value."""
        return DeleteMany(self.context, self.keys(keys, version))

    def expire(self, key: Key, timeout: Timeout, version: int | None) -> Operation[bool]:
        """Change the expiry of a key; the result tells whether it held a value."""
        full = self.key(key, version)
        milliseconds = self.milliseconds(timeout)
        if milliseconds == 0:
            return Delete(self.context, full)
        return Expire(self.context, full, milliseconds)

    def increment(
        self,
        key: Key,
        amount: int,
        version: int | None,
        *,
        creates: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Operation[int]:
        """Add to an integer; see ``Increment``.

        Raises:
            TypeError: The amount is not a number.
        """
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise TypeError(f"A number can be added, not {amount!r}.")
        milliseconds = self.milliseconds(timeout)
        if creates and milliseconds is not None:
            # A key that must not live still has to be counted once; a millisecond is the least.
            milliseconds = max(1, milliseconds)
        return Increment(self.context, self.key(key, version), amount, creates, milliseconds)

    def rename(self, key: Key, version: int, delta: int) -> Operation[bool]:
        """Move a value to another version; the result tells whether there was one."""
        return Rename(self.context, self.key(key, version), self.key(key, version + delta))

    def results(self, policy: ExpirationPolicy) -> ResultOperationFactory:
        """Return a factory of operations on computed results with an expiration policy."""
        return ResultOperationFactory(self._alias, self.context, policy)

    def scan(self, pattern: str, version: int | None, count: int) -> Operation[list[str]]:
        """Return the full keys that match a pattern; ``strip`` takes the prefix off."""
        return ScanKeys(self.context, self._pattern(pattern, version), max(1, count))

    def scan_page(
        self, pattern: str, version: int | None, count: int, cursor: int
    ) -> Operation[tuple[int, list[str]]]:
        """Return the next cursor, 0 at the end, and some of the full keys that match a pattern."""
        return ScanPage(self.context, self._pattern(pattern, version), max(1, count), cursor)

    def delete_pattern(
        self, pattern: str, version: int | None = None, count: int = STEP
    ) -> Operation[int]:
        """Delete the keys that match a pattern; the result is how many held a value."""
        return DeletePattern(self.context, self._pattern(pattern, version), max(1, count))

    def clear(self) -> Operation[int]:
        """Delete every key: of the namespace, or of the alias in all versions."""
        if self._prefix:
            return self.delete_pattern("*")
        if self.context.keyspace is None:
            raise CacheLayerError(
                "This cache cannot be cleared: its KEY_FUNCTION does not put one beginning and one "
                "end around every key of every version, so its keys cannot be told from others."
            )
        return Clear(self.context, self.context.keyspace)

    def strip(self, keys: Iterable[str], version: int | None) -> list[str]:
        """Return the caller's keys in full keys."""
        template = self._template(version)
        start = len(self._prefix)
        return [template.strip(key)[start:] for key in keys]

    def milliseconds(self, timeout: Timeout) -> int | None:
        """Return Django's timeout in milliseconds: None never expires, 0 is over at once."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self._alias.default_timeout
        if timeout is None:
            return None
        if timeout <= 0:
            return 0
        return min(LONGEST, max(1, int(timeout * 1000)))

    def _pattern(self, pattern: str, version: int | None) -> str:
        return self._template(version).pattern(f"{self._prefix}{pattern}")

    def _template(self, version: int | None) -> KeyTemplate:
        alias = self._alias
        return KeyTemplate.of(
            alias.key_func, alias.key_prefix, alias.version if version is None else version
        )


class ResultOperationFactory(OperationFactory):
    """Makes the operations on computed results: those of one decorated function, or of one call.

    Args:
        alias: See ``OperationFactory``.
        context: See ``OperationFactory``.
        policy: The expiration policy of the results.
        stem: The text that all keys begin with.
        tags: The keys of tags that all results depend on.
    """

    def __init__(
        self,
        alias: Alias,
        context: OperationContext,
        policy: ExpirationPolicy,
        stem: str = "",
        tags: Sequence[str] = (),
    ) -> None:
        super().__init__(alias, context)
        self._policy = policy
        self._tags = tags
        early = _ms(policy.refresh_before)
        lifetime = self._lifetime
        # Otherwise a result with a short default timeout would be refreshed at once.
        self._early = early if lifetime is None or early < lifetime else 0
        if self.before is not None:
            # Made once: most calls have no other tags.
            self._full_tags = tuple(map(self.key, tags))
            self._raw_tags = [raw(tag) for tag in self._full_tags]
            # The text behind the stem has only characters that every cache accepts.
            self._odd = alias.is_odd(f"{self.before}{stem}")

    @property
    def is_storing(self) -> bool:
        """Whether results are stored at all."""
        return self._lifetime != 0

    def result_key(self, key: str, tags: Iterable[str] = ()) -> ResultKey:
        """Return the key and tags of the result of a call; ``tags`` are added to those of all."""
        if self.before is None:
            full_tags = tuple(map(self.key, (*self._tags, *tags)))
            return ResultKey(self.key(key), full_tags, list(map(raw, full_tags)))
        full = self.before + key
        # No warning of a long key: only memcached refuses it, and the caller cannot shorten it.
        if self._odd:
            self._alias.validate_key(full)
        if not tags:
            return ResultKey(full, self._full_tags, self._raw_tags)
        more = tuple(map(self.key, tags))
        return ResultKey(full, self._full_tags + more, self._raw_tags + list(map(raw, more)))

    def read(self, result: ResultKey) -> ReadResult:
        """Return the result, ``StaleValue`` or ``MISSING``."""
        return ReadResult(self.context, result, self._early)

    def read_all(self, reads: Sequence[ReadResult]) -> Operation[list[Value]]:
        """Do several reads at once."""
        return ReadResults(self.context, reads)

    def together(self, operations: Sequence[Single[Value]]) -> Operation[list[Value]]:
        """Do several operations on results at once."""
        return Together(self.context, operations)

    def claim(self, result: ResultKey, unreadable: bytes = b"") -> Claim:
        """Return the result, ``StaleValue`` or a ``Lease``."""
        longest = min(LONGEST, (self._lifetime or 0) + _ms(self._policy.stale_ttl))
        return Claim(self.context, result, self._early, _lease_time(), longest, unreadable)

    def fill(self, result: ResultKey, value: Value, lease: Lease) -> Single[bool]:
        """Store a result under a lease; tells whether it is stored.

        If results are not stored at all, the lease is released.

        Raises:
            UnsupportedValueError: The serializer cannot store it exactly.
        """
        data = self._codec.encode(result.key, value)
        if not self.is_storing:
            return Release(self.context, result.key, lease)
        return Fill(self.context, result, lease, data, *self._times())

    def release(self, result: ResultKey, lease: Lease) -> Single[bool]:
        """Release a lease."""
        return Release(self.context, result.key, lease)

    def claim_refresh(self, result: ResultKey, stale: StaleValue) -> Operation[bool]:
        """Claim the refresh of a result; the result tells whether the caller has it."""
        return ClaimRefresh(self.context, result.key, stale, _lease_time(), again=False)

    def release_refresh(
        self, result: ResultKey, stale: StaleValue, seconds: float
    ) -> Operation[bool]:
        """Let others refresh a result after a number of seconds."""
        return ClaimRefresh(self.context, result.key, stale, _ms(seconds), again=True)

    def store_refreshed(
        self, result: ResultKey, stale: StaleValue, value: Value
    ) -> Operation[bool]:
        """Store a result in the place of a stale one; tells whether it is stored.

        Raises:
            UnsupportedValueError: The serializer cannot store it exactly.
        """
        data = self._codec.encode(result.key, value)
        return StoreRefreshed(self.context, result.key, stale, data, *self._times())

    def delete_stale(self, result: ResultKey, stale: StaleValue) -> Operation[bool]:
        """Delete a result, if it is still the given one."""
        return DeleteStale(self.context, result.key, stale)

    @property
    def _lifetime(self) -> int | None:
        return self.milliseconds(self._policy.ttl)

    def _times(self) -> tuple[int | None, int]:
        """Return the milliseconds to live and the end of freshness (0: they are the same)."""
        lifetime = self._lifetime
        if lifetime is None:
            return None, 0
        policy = self._policy
        fresh = max(1, lifetime - int(random.random() * _ms(policy.jitter)))  # noqa: S311
        if not policy.stale_ttl and not policy.refresh_before:
            return fresh, 0
        return min(LONGEST, fresh + _ms(policy.stale_ttl)), int(time.time() * 1000) + fresh


def _warn_once(cls: type, reason: str) -> None:
    name = f"{cls.__module__}.{cls.__qualname__}"
    if name not in _warned:
        _warned.add(name)
        logger.warning("Responses of the class %s are served uncached. %s", name, reason)


def _ms(seconds: float | None) -> int:
    return int((seconds or 0) * 1000)


def _lease_time() -> int:
    return max(1, _ms(settings.LEASE_TTL))
