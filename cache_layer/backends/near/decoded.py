"""DecodedValues out of the near cache by the caller's own names, before a key is made. No I/O."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from cache_layer.backends.encoding import (
    ENVELOPE,
    FRESH_END,
    NEVER,
    NONCE_END,
    UnreadableValueError,
    payload_start,
)
from cache_layer.backends.near.cache import Copy, NearCache
from cache_layer.backends.operations.base import Read
from cache_layer.backends.operations.results import ReadResult, StaleValue
from cache_layer.metrics import NEAR_HITS, own_counts, record

#: What an answer takes beside its value.
_OVERHEAD: Final = 550

#: Names by which one copy may be known.
_PLACES: Final = 16

_PLAIN: Final = frozenset(
    {str, bytes, int, float, bool, type(None), UUID, Decimal}
    | {dt.date, dt.time, dt.timedelta, dt.datetime}
)

#: What ``DecodedValues.get`` returns when it has no answer.
NOT_FOUND: Final[Any] = object()

_monotonic = time.monotonic


class DecodedValue:
    """What a read amounts to, as long as its copies live; None as payload: the value itself."""

    __slots__ = ("copy", "counter", "payload", "tags", "until", "value")

    def __init__(
        self,
        copies: Sequence[Copy],
        until: float,
        value: Any,
        payload: bytes | None,
        namespace: str,
    ) -> None:
        self.copy = copies[0]
        self.tags = copies[1:]
        self.until = until
        self.value = value if payload is None else None
        self.payload = payload
        self.counter = (namespace, NEAR_HITS)


class DecodedValues:
    """DecodedValues by the caller's names: what makes a hit cheap."""

    __slots__ = ("_decode", "_find", "_near", "_of_view", "_values")

    def __init__(self, near: NearCache, decode: Callable[[bytes], Any], *, of_view: bool) -> None:
        self._near = near
        #: Whether they are of one backend's keys; otherwise of all that there may be.
        self._of_view = of_view
        self._decode = decode
        self._values: dict[Any, DecodedValue] = {}
        self._find = self._values.get

    def get(self, name: Any) -> Any:
        """Return the value, or ``NOT_FOUND``."""
        answer = self._find(name)
        if answer is None:
            return NOT_FOUND
        now = _monotonic()
        if now >= answer.until or now >= self._near.until:
            return NOT_FOUND
        # An answer is taken away with its first copy; the others it has to look at.
        for tag in answer.tags:
            if not tag.alive:
                return NOT_FOUND
            tag.used = True
        answer.copy.used = True
        if answer.payload is None:
            value = answer.value
        else:
            # Decoded anew: what a caller changes is not changed for others.
            try:
                value = self._decode(answer.payload)
            except UnreadableValueError:
                return NOT_FOUND
        counter = answer.counter
        counts = own_counts.counts
        counts[counter] = counts.get(counter, 0) + 1
        return value

    def learn(self, name: Any, read: Read[Any]) -> None:
        """Take note of a read whose keys may be here now."""
        if not read.context.steady or not (self._of_view or self._near.single_prefix):
            return
        copies = self._near.copies(read.reads)
        if copies is None:
            return
        answered, value = read.answer([copy.data for copy in copies])
        if not answered:
            return
        # The read itself was counted.
        record(read.context.namespace, "hits", -1)
        if type(value) is StaleValue:
            return
        data = copies[0].data
        until = min(copy.deadline for copy in copies)
        start = 0
        if data.startswith(ENVELOPE):
            start = payload_start(data)
            fresh_until = data[NONCE_END:FRESH_END]
            if fresh_until != NEVER:
                # From then on, reading it has consequences.
                early = read.early if isinstance(read, ReadResult) else 0
                until = min(until, _monotonic() + (int(fresh_until) - early) / 1000 - time.time())
        payload = None if is_plain(value) else data[start:]
        answer = DecodedValue(copies, until, value, payload, read.context.namespace)
        with self._near.lock:
            # A copy that was dropped meanwhile would never take this away.
            if not copies[0].alive:
                return
            known = self._values.get(name)
            if known is None or known.copy is not copies[0]:
                if len(copies[0].places) == _PLACES:
                    return
                copies[0].places.append((self._values, name))
                self._values[name] = answer
                made = len(data) - start if start or payload is None else 0
                self._near.grow(copies[0], _OVERHEAD + made)
            else:
                self._values[name] = answer


def is_plain(value: Any) -> bool:
    """Tell whether a value cannot be changed, nor anything in it."""
    cls = type(value)
    if cls is tuple or cls is frozenset:
        return all(map(is_plain, value))
    return cls in _PLAIN
