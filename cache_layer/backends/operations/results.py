# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Values under tags: read, lease, store. See ``envelope`` for what they look like."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from cache_layer.backends.context import Context, Lease
from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import (
    CLAIM_END,
    ENVELOPE,
    FRESH_END,
    MARKER,
    NEVER,
    NONCE_END,
    TOKEN,
    Entry,
    new_token,
    payload_start,
    seal,
)
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import tag_lua
from cache_layer.backends.operations.base import Command, Read, Single, cover, px
from cache_layer.journal import Journal
from cache_layer.metrics import record


@dataclasses.dataclass(frozen=True, slots=True)
class StaleValue:
    """A value that is to be renewed, and that nobody renews yet."""

    value: Any
    #: What its envelope begins with, for recognizing it.
    identity: bytes
    #: Its envelope's list of tags.
    section: bytes
    fresh_until: int

    @property
    def is_fresh(self) -> bool:
        """Whether its end of freshness is still to come."""
        return time.time() * 1000 < self.fresh_until


class Missing:
    """The type of ``MISSING``."""


#: The answer of a ``CachedRead`` that found no value, or none that it can decode.
MISSING: Final = Missing()


class CachedRead(Read[Any]):
    """The value of an entry, ``StaleValue`` around it when it is to be renewed, or ``MISSING``.

    ``early``: milliseconds before the end of freshness from which on it is to be renewed.
    """

    __slots__ = ("early", "entry", "unreadable")

    def __init__(self, context: Context, entry: Entry, early: int) -> None:
        self.context = context
        self.key = entry.key
        self.entry = entry
        self.early = early
        #: The nonce of a value that cannot be decoded.
        self.unreadable = b""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.key, *self.entry.tags)

    def answer(self, held: Sequence[bytes | None]) -> tuple[bool, Any]:
        found = self.parse(held)
        return found is not MISSING, found

    def command(self) -> Command:
        return ("MGET", *self.entry.raw)

    def parse(self, reply: Sequence[bytes | None] | None) -> Any:
        if reply is None or not (start := self.entry.start(reply)):
            return MISSING
        return self.opened(reply[0] or b"", start)

    def rejected(self) -> Any:
        self.error()
        return MISSING

    def in_memory(self, store: MemoryStore) -> Any:
        return self.parse([store.read(key) for key in self.reads])

    def opened(self, data: bytes, start: int) -> Any:
        """Return the value of a valid envelope."""
        try:
            value = self.context.codec.decode(data[start:])
        except UnreadableValueError:
            self.error()
            self.unreadable = data[len(ENVELOPE) : NONCE_END]
            return MISSING
        record(self.context.namespace, "hits")
        fresh_until = data[NONCE_END:FRESH_END]
        if fresh_until != NEVER:
            until = _number(fresh_until)
            now = time.time() * 1000
            if now >= until - self.early and now >= _number(data[FRESH_END:CLAIM_END]):
                return StaleValue(value, data[:NONCE_END], data[CLAIM_END:start], until)
        return value


class Claim(CachedRead):
    """The value of an entry, as ``CachedRead`` has it, or a ``Lease``.

    A lease's token is random and followed by the tokens of the tags, so that a lease of before a
    tag's invalidation is neither shared nor filled.
    """

    __slots__ = ("_random", "claimed", "milliseconds", "tags_milliseconds")
    writes = True

    def __init__(
        self,
        context: Context,
        entry: Entry,
        early: int,
        milliseconds: int,
        tags_milliseconds: int,
        unreadable: bytes,
    ) -> None:
        super().__init__(context, entry, early)
        self.milliseconds = milliseconds
        self.tags_milliseconds = tags_milliseconds
        self.unreadable = unreadable
        self._random = secrets.token_bytes(16)
        #: The lease that this call may have placed, known before its reply: a caller that is
        #: cancelled while it waits for that can give it back.
        self.claimed: Lease | None = None

    def command(self) -> Command:
        self.claimed = Lease(self._random, owner=True)
        return tag_lua.CLAIM(
            self.entry.raw,
            self._random,
            self.milliseconds,
            self.tags_milliseconds,
            self.unreadable,
            *[new_token() for _ in self.entry.tags],
        )

    def parse(self, reply: Any) -> Any:
        if reply.startswith(MARKER):
            token = reply[len(MARKER) :]
            return self._lease(token, owner=token.startswith(self._random))
        found = self.opened(reply, payload_start(reply))
        # It cannot be decoded: a token that is nowhere makes the fill come to nothing.
        return self._lease(self._random, owner=False) if found is MISSING else found

    def rejected(self) -> Any:
        self.error()
        return self._lease(self._random, owner=False)

    def answer(self, held: Sequence[bytes | None]) -> tuple[bool, Any]:
        return False, None

    def in_memory(self, store: MemoryStore) -> Any:
        tokens: list[bytes] = []
        for tag in self.entry.tags:
            token = store.read(tag)
            if token is None or len(token) != TOKEN or not token.startswith(MARKER):
                token = new_token()
                store.write(tag, token, self.tags_milliseconds)
            tokens.append(token)
        data = store.read(self.key)
        if data is not None:
            if data.startswith(MARKER) and data[NONCE_END:] == b"".join(tokens):
                return self.parse(data)
            if start := self.entry.start([data, *tokens]):
                found = self.opened(data, start)
                if found is not MISSING:
                    return found
        marker = b"".join((MARKER, self._random, *tokens))
        store.write(self.key, marker, self.milliseconds)
        return self.parse(marker)

    def remember(self, journal: Journal) -> None:
        # A marker that was placed and not answered for would hold up who waits for its owner.
        if self.claimed is not None:
            journal.add_key(self.key, self.context.keyspace)

    def _lease(self, token: bytes, owner: bool) -> Lease:
        record(self.context.namespace, "misses")
        return Lease(token, owner)


class FillTagged(Single[bool]):
    """Store a value if its lease is still there and no tag changed; tells whether it did."""

    __slots__ = ("entry", "envelope", "lease", "milliseconds")

    def __init__(
        self,
        context: Context,
        entry: Entry,
        lease: Lease,
        data: bytes,
        milliseconds: int | None,
        fresh_until: int,
    ) -> None:
        super().__init__(context, entry.key)
        self.entry = entry
        self.lease = lease
        self.milliseconds = milliseconds
        first = NONCE_END - len(MARKER)
        tokens = [
            lease.token[first + TOKEN * number : first + TOKEN * (number + 1)]
            for number in range(len(entry.tags))
        ]
        self.envelope = seal(entry.section(tokens) or b"", data, fresh_until)

    def command(self) -> Command:
        marker = MARKER + self.lease.token
        return tag_lua.FILL(self.entry.raw, marker, self.envelope, px(self.milliseconds))

    def parse(self, reply: Any) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if store.read(self.key) != MARKER + self.lease.token:
            return False
        current = b"".join(store.read(tag) or b"" for tag in self.entry.tags)
        if current != self.lease.token[NONCE_END - len(MARKER) :]:
            return False
        cover(store, self.envelope, self.milliseconds)
        store.write(self.key, self.envelope, self.milliseconds)
        return self.parse(True)


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        # Damaged; it is renewed.
        return 0
