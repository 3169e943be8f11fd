"""Decoded values of the near cache, found by the caller's own names. No I/O."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Decimal
from typing import Final, cast
from uuid import UUID

from cache_layer.aliases import Value
from cache_layer.backends.encoding import (
    ENVELOPE,
    FRESH_END,
    NEVER,
    NONCE_END,
    UnreadableValueError,
    payload_start,
)
from cache_layer.backends.near.cache import Entry, NearCache
from cache_layer.backends.operations.base import Read
from cache_layer.backends.operations.results import ReadResult, StaleValue
from cache_layer.metrics import NEAR_HITS, counted_as, own_counts, record

#: Overhead of a decoded value, in bytes.
_OVERHEAD: Final = 550

#: Callers cannot change values of these types.
_IMMUTABLE: Final = frozenset(
    {str, bytes, int, float, bool, type(None), UUID, Decimal}
    | {dt.date, dt.time, dt.timedelta, dt.datetime}
)

#: The result of ``DecodedValues.get`` for an unknown name.
NOT_FOUND: Final[Value] = object()

_monotonic = time.monotonic


class _DecodedValue:
    """The answer to a read: an immutable value, or else the bytes to decode again."""

    __slots__ = ("counter", "entry", "payload", "tags", "until", "value")

    def __init__(
        self,
        entries: Sequence[Entry],
        until: float,
        value: object,
        payload: bytes | None,
        name: str,
    ) -> None:
        #: The entry of the value, and the entries of the tags that it depends on.
        self.entry, *self.tags = entries
        self.until = until
        self.value = value if payload is None else None
        self.payload = payload
        self.counter = (counted_as(name), NEAR_HITS)


class DecodedValues:
    """Decoded values by name, which make a hit cheap.

    A name must always stand for the same key.
    """

    __slots__ = ("_decode", "_find", "_near", "_values")

    def __init__(self, near: NearCache, decode: Callable[[bytes], object]) -> None:
        self._near = near
        self._decode = decode
        self._values: dict[Hashable, _DecodedValue] = {}
        self._find = self._values.get

    def get(self, name: Hashable) -> Value:
        """Return the value of a name, or ``NOT_FOUND``."""
        decoded = self._find(name)
        if decoded is None:
            return NOT_FOUND
        now = _monotonic()
        if now >= decoded.until or now >= self._near.until:
            return NOT_FOUND
        # A value is taken away with its own entry; those of its tags have to be looked at.
        for tag in decoded.tags:
            if not tag.alive:
                return NOT_FOUND
            tag.used = True
        decoded.entry.used = True
        if decoded.payload is None:
            value = decoded.value
        else:
            # A change by one caller must not be visible to others.
            try:
                value = self._decode(decoded.payload)
            except UnreadableValueError:
                return NOT_FOUND
        counter = decoded.counter
        counts = own_counts.counts
        counts[counter] = counts.get(counter, 0) + 1
        return value

    def learn(self, name: Hashable, read: Read[Value]) -> None:
        """Keep the value of a finished read, if the near cache has its entries."""
        entries = self._near.entries(read.reads)
        if entries is None:
            return
        answered, value = read.answer([entry.data for entry in entries])
        if not answered:
            return
        # The read itself was counted.
        record(read.context.namespace, "hits", -1)
        if type(value) is StaleValue:
            return
        data = entries[0].data
        until = min(entry.deadline for entry in entries)
        start = 0
        if data.startswith(ENVELOPE):
            start = payload_start(data)
            fresh_until = data[NONCE_END:FRESH_END]
            if fresh_until != NEVER:
                # From then on, a read of it has consequences.
                early = read.early if isinstance(read, ReadResult) else 0
                until = min(until, _monotonic() + (int(fresh_until) - early) / 1000 - time.time())
        payload = None if is_immutable(value) else data[start:]
        decoded = _DecodedValue(entries, until, value, payload, read.context.namespace)
        made = len(data) - start if start or payload is None else 0
        self._near.attach(entries[0], self._values, name, decoded, _OVERHEAD + made)


def is_immutable(value: object) -> bool:
    """Return whether neither a value nor anything in it can be changed."""
    cls = type(value)
    if cls is tuple or cls is frozenset:
        return all(map(is_immutable, cast("Iterable[object]", value)))
    return cls in _IMMUTABLE
