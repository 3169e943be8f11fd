# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations that store a computed value unless an invalidation came in between.

A reader that misses leaves a marker with a random token at the key; the value it computes is stored
only if that very marker is still there and no tag has changed. If the key or a tag is removed or
overwritten in between (by a delete, a pattern, a flush of another client), nothing is stored.
During an outage the markers are in memory only.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

from cache_layer.aliases import Value
from cache_layer.backends.encoding import (
    ENVELOPE,
    MARKER,
    NONCE_END,
    TOKEN,
    DamagedEnvelopeError,
    ResultKey,
    new_token,
    payload_start,
    seal,
)
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    TAG_SURPLUS,
    Command,
    OperationContext,
    Refusal,
    Reply,
    Single,
    cover,
    held,
    px,
    raw,
)
from cache_layer.backends.operations.results import MISSING, ReadResult
from cache_layer.journal import Journal
from cache_layer.metrics import record

#: Where the tokens of tags begin in a lease's token.
_RANDOM = NONCE_END - len(MARKER)


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The right to store the value of one key, until the key is invalidated or the lease ends.

    ``owner`` is True for the one caller that placed it; other callers who miss before its end share
    the token.
    """

    token: bytes
    owner: bool


class Claim(ReadResult):
    """Return the value of a result, as ``ReadResult`` does, or a ``Lease``.

    A lease's token is random and followed by the tokens of the tags, so that a lease of before a
    tag's invalidation is neither shared nor filled.

    Args:
        context: See ``OperationContext``.
        result: The key of the result, and its tags; without tags, any value under the key counts.
        early: See ``ReadResult``.
        milliseconds: Lifetime of the lease.
        value_milliseconds: Longest lifetime of a value stored under the lease.
        unreadable: The bytes of the key, if they could not be decoded; they are replaced.
    """

    __slots__ = ("_random", "claimed", "milliseconds", "tag_milliseconds")
    # Without a lease the value is computed and not stored.
    refusal = Refusal.PASSED
    writes = True

    def __init__(
        self,
        context: OperationContext,
        result: ResultKey,
        early: int,
        milliseconds: int,
        value_milliseconds: int,
        unreadable: bytes,
    ) -> None:
        super().__init__(context, result, early)
        self.milliseconds = milliseconds
        self.tag_milliseconds = max(2 * milliseconds, value_milliseconds) + TAG_SURPLUS
        self.unreadable = unreadable
        self._random = secrets.token_bytes(_RANDOM)
        #: The lease that this call may have placed, known before its reply: a caller that is
        #: cancelled while it waits for that can give it back.
        self.claimed: Lease | None = None

    def command(self) -> Command:
        self.claimed = Lease(self._random, owner=True)
        return lua.CLAIM(
            self.result.raw,
            self._random,
            self.milliseconds,
            self.tag_milliseconds,
            self.unreadable,
            *[new_token() for _ in self.result.tags],
        )

    def parse(self, reply: Reply) -> Value:
        if reply.startswith(MARKER):
            token = reply[len(MARKER) :]
            return self._lease(token, owner=token.startswith(self._random))
        try:
            start = payload_start(reply) if reply.startswith(ENVELOPE) else 0
            found = self.decoded(reply, start)
        except DamagedEnvelopeError:
            found = MISSING
        # The value cannot be decoded. With a token that no key has, nothing will be stored.
        return self._lease(self._random, owner=False) if found is MISSING else found

    def rejected(self) -> Value:
        self.error()
        return self._lease(self._random, owner=False)

    def answer(self, held: Sequence[bytes | None]) -> tuple[bool, Value]:
        return False, None

    def in_memory(self, store: MemoryStore) -> Value:
        tokens: list[bytes] = []
        for tag in self.result.tags:
            token = store.read(tag)
            if token is None or len(token) != TOKEN or not token.startswith(MARKER):
                token = new_token()
                store.write(tag, token, self.tag_milliseconds)
            tokens.append(token)
        data = store.read(self.key)
        if data is not None and data != self.unreadable:
            if data.startswith(MARKER):
                if data[NONCE_END:] == b"".join(tokens):
                    return self.parse(data)
            elif tokens:
                if self.result.value_start([data, *tokens]) >= 0:
                    return self.parse(data)
            elif held(store, self.key) is not None:
                return self.parse(data)
        marker = b"".join((MARKER, self._random, *tokens))
        store.write(self.key, marker, self.milliseconds)
        return self.parse(marker)

    def remember(self, journal: Journal) -> None:
        # A marker without an owner would delay the callers that wait for the owner.
        if self.claimed is not None:
            journal.add_key(self.key, self.context.keyspace)

    def _lease(self, token: bytes, owner: bool) -> Lease:
        record(self.context.namespace, "misses")
        return Lease(token, owner)


class Fill(Single[bool]):
    """Store a value if its lease still exists and no tag changed; tells whether it is stored.

    Args:
        context: See ``OperationContext``.
        result: The result that the lease was claimed for.
        lease: The lease.
        data: The encoded value.
        milliseconds: Lifetime of the value; None never expires.
        fresh_until: See ``encoding.seal``; a value without tags has no end of freshness.
    """

    __slots__ = ("data", "lease", "milliseconds", "result")
    # Without a lease the value is computed and not stored.
    refusal = Refusal.PASSED

    def __init__(
        self,
        context: OperationContext,
        result: ResultKey,
        lease: Lease,
        data: bytes,
        milliseconds: int | None,
        fresh_until: int = 0,
    ) -> None:
        super().__init__(context, result.key)
        self.result = result
        self.lease = lease
        self.milliseconds = milliseconds
        if result.tags:
            ends = range(_RANDOM, _RANDOM + TOKEN * len(result.tags), TOKEN)
            tokens = [lease.token[at : at + TOKEN] for at in ends]
            data = seal(result.tag_section(tokens), data, fresh_until)
        self.data = data

    def command(self) -> Command:
        marker = MARKER + self.lease.token
        return lua.FILL(self.result.raw, marker, self.data, px(self.milliseconds))

    def parse(self, reply: Reply) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if store.read(self.key) != MARKER + self.lease.token:
            return False
        current = b"".join(store.read(tag) or b"" for tag in self.result.tags)
        if current != self.lease.token[_RANDOM:]:
            return False
        cover(store, self.data, self.milliseconds)
        store.write(self.key, self.data, self.milliseconds)
        return self.parse(True)


class Release(Single[bool]):
    """Release a lease without storing a value; tells whether it was still held."""

    __slots__ = ("lease",)
    # A lease ends by itself.
    refusal = Refusal.PASSED

    def __init__(self, context: OperationContext, key: str, lease: Lease) -> None:
        super().__init__(context, key)
        self.lease = lease

    def command(self) -> Command:
        return lua.DELETE_IF([raw(self.key)], self._identity())

    def parse(self, reply: Reply) -> bool:
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        is_held = (store.read(self.key) or b"").startswith(self._identity())
        if is_held:
            store.drop(self.key)
        return is_held

    def _identity(self) -> bytes:
        # A cancelled caller may not know the tokens of tags that follow.
        return (MARKER + self.lease.token)[:NONCE_END]
