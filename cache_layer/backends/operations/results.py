# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations that read a cached result and refresh it in the background.

An operation that refreshes a result fails once the result is invalidated.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Sequence
from typing import Final

from cache_layer.aliases import Value
from cache_layer.backends.encoding import (
    CLAIM_END,
    ENVELOPE,
    FRESH_END,
    NEVER,
    NONCE_END,
    ResultKey,
    UnreadableValueError,
    digits,
    named_tags,
    seal,
)
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    Command,
    OperationContext,
    Read,
    Refusal,
    Reply,
    Single,
    cover,
    held,
    px,
    raw,
)
from cache_layer.metrics import record


class Missing(enum.Enum):
    """The type of ``MISSING``."""

    MISSING = "missing"


#: The result of a ``ReadResult`` that found no value that it can decode.
MISSING: Final = Missing.MISSING


@dataclasses.dataclass(frozen=True, slots=True)
class StaleValue:
    """A value that is due for a refresh that nobody has begun."""

    value: Value
    #: The beginning of its envelope, which is unique.
    identity: bytes
    #: Its envelope's list of tags.
    tag_section: bytes
    #: End of freshness in milliseconds since the epoch.
    fresh_until: int

    @property
    def is_fresh(self) -> bool:
        """Whether its end of freshness is in the future."""
        return time.time() * 1000 < self.fresh_until


class ReadResult(Read[Value]):
    """Return the value of a result, a ``StaleValue`` if it is due for a refresh, or ``MISSING``.

    Args:
        context: See ``OperationContext``.
        result: The key of the result, and its tags.
        early: Milliseconds before the end of freshness at which a refresh is due.
    """

    __slots__ = ("early", "result", "unreadable")
    refusal = Refusal.OUTAGE

    def __init__(self, context: OperationContext, result: ResultKey, early: int) -> None:
        self.context = context
        self.key = result.key
        self.result = result
        self.early = early
        #: The bytes of the key, if they cannot be decoded.
        self.unreadable = b""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.key, *self.result.tags)

    def answer(self, held: Sequence[bytes | None]) -> tuple[bool, Value]:
        found = self.parse(held)
        return found is not MISSING, found

    def command(self) -> Command:
        return ("MGET", *self.result.raw)

    def parse(self, reply: Sequence[bytes | None] | None) -> Value:
        if reply is None:
            return MISSING
        data = reply[0] or b""
        if (start := self.result.value_start(reply)) >= 0:
            return self.decoded(data, start)
        if len(reply) == 1 and data.startswith(ENVELOPE) and not named_tags([data]):
            self._not_decoded(data)
        return MISSING

    def rejected(self) -> Value:
        self.error()
        return MISSING

    def in_memory(self, store: MemoryStore) -> Value:
        return self.parse([store.read(key) for key in self.reads])

    def decoded(self, data: bytes, start: int) -> Value:
        """Return the value that begins at an index of the bytes."""
        try:
            value = self.context.codec.decode(data[start:] if start else data)
        except UnreadableValueError:
            return self._not_decoded(data)
        record(self.context.namespace, "hits")
        if start:
            fresh_until = data[NONCE_END:FRESH_END]
            if fresh_until != NEVER:
                until = _number(fresh_until)
                now = time.time() * 1000
                if now >= until - self.early and now >= _number(data[FRESH_END:CLAIM_END]):
                    return StaleValue(value, data[:NONCE_END], data[CLAIM_END:start], until)
        return value

    def _not_decoded(self, data: bytes) -> Missing:
        self.error()
        self.unreadable = data
        return MISSING


class _OfStaleValue(Single[bool]):
    """The base class of operations on the envelope of a stale value, while that is valid."""

    __slots__ = ("stale",)

    def __init__(self, context: OperationContext, key: str, stale: StaleValue) -> None:
        super().__init__(context, key)
        self.stale = stale

    def parse(self, reply: Reply) -> bool:
        return bool(reply)

    def envelope_in(self, store: MemoryStore) -> bytes | None:
        """Return the envelope, if it still exists and is valid."""
        data = store.read(self.key)
        if data is None or data[:NONCE_END] != self.stale.identity:
            return None
        return None if held(store, self.key) is None else data


class ClaimRefresh(_OfStaleValue):
    """Claim the refresh of a value for some time; tells whether the caller has it.

    Of all concurrent callers, one succeeds.

    Args:
        context: See ``OperationContext``.
        key: The full key of the result.
        stale: The value that was read.
        milliseconds: The duration of the claim.
        again: Whether the caller has the claim already and sets another duration.
    """

    __slots__ = ("again", "milliseconds")
    # Nobody refreshes the value then; it expires.
    refusal = Refusal.PASSED

    def __init__(
        self,
        context: OperationContext,
        key: str,
        stale: StaleValue,
        milliseconds: int,
        *,
        again: bool,
    ) -> None:
        super().__init__(context, key, stale)
        self.milliseconds = milliseconds
        self.again = again

    def command(self) -> Command:
        again = "again" if self.again else ""
        identity = self.stale.identity
        return lua.CLAIM_REFRESH([raw(self.key)], identity, self.milliseconds, again)

    def in_memory(self, store: MemoryStore) -> bool:
        data = self.envelope_in(store)
        now = int(time.time() * 1000)
        if data is None or (not self.again and digits(now) < data[FRESH_END:CLAIM_END]):
            return False
        until = digits(now + self.milliseconds)
        store.replace(self.key, data[:FRESH_END] + until + data[CLAIM_END:])
        return True


class StoreRefreshed(_OfStaleValue):
    """Store another value under the same tags; tells whether it is stored."""

    __slots__ = ("envelope", "milliseconds")
    refusal = Refusal.PASSED

    def __init__(
        self,
        context: OperationContext,
        key: str,
        stale: StaleValue,
        data: bytes,
        milliseconds: int | None,
        fresh_until: int,
    ) -> None:
        super().__init__(context, key, stale)
        self.envelope = seal(stale.tag_section, data, fresh_until)
        self.milliseconds = milliseconds

    def command(self) -> Command:
        identity = self.stale.identity
        return lua.REFRESH([raw(self.key)], identity, self.envelope, px(self.milliseconds))

    def parse(self, reply: Reply) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if self.envelope_in(store) is None:
            return False
        cover(store, self.envelope, self.milliseconds)
        store.write(self.key, self.envelope, self.milliseconds)
        return self.parse(True)


class DeleteStale(_OfStaleValue):
    """Delete the value, if it is still the same; tells whether it was."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def command(self) -> Command:
        return lua.DELETE_IF([raw(self.key)], self.stale.identity)

    def in_memory(self, store: MemoryStore) -> bool:
        if self.envelope_in(store) is None:
            return False
        store.drop(self.key)
        return True


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        # Damaged; the value is refreshed.
        return 0
