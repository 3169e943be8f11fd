# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Storing a computed value only while nothing invalidated it.

A reader that misses leaves a marker with a token at the key; the value it computes is stored only
if that very marker is still there. Whatever removes or overwrites the key in between - a delete, a
pattern, a flush by another client - makes the store come to nothing. During an outage the markers
are in memory alone.
"""

from __future__ import annotations

import secrets
from typing import Any

from cache_layer.backends.context import Context, Lease
from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import MARKER, NONCE_END, Lookup, living, named_tags
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua, tag_lua
from cache_layer.backends.operations.base import Command, Operation, Single, Steps, px, raw
from cache_layer.journal import Journal
from cache_layer.metrics import record


class GetOrLease(Operation[Any]):
    """The value of a key, or a lease for storing one: ``Lease``."""

    __slots__ = ("claimed", "key", "milliseconds")

    def __init__(self, context: Context, key: str, milliseconds: int) -> None:
        self.context = context
        self.key = key
        self.milliseconds = milliseconds
        #: The lease that this call may have placed, known before its reply: a caller that is
        #: cancelled while it waits for that can give it back.
        self.claimed: Lease | None = None

    def steps(self) -> Steps[Any]:
        key = raw(self.key)
        token = b""
        for _attempt in range(3):
            (data,) = yield [("GET", key)]
            if isinstance(data, Exception):
                self.error()
                break
            tokens: dict[str, bytes | None] = {}
            if tags := named_tags([data]):
                (replies,) = yield [("MGET", *map(raw, tags))]
                tokens = dict(zip(tags, replies, strict=True))
            found, known = self._look(data, tokens.get)
            if known:
                return found
            token = token or secrets.token_bytes(16)
            self.claimed = Lease(token, owner=True)
            if data is None:
                claim: Command = ("SET", key, MARKER + token, "NX", "PX", self.milliseconds)
            else:
                claim = lua.SWAP([key], data, MARKER + token, self.milliseconds)
            (claimed,) = yield [claim]
            if claimed and not isinstance(claimed, Exception):
                return self._lease(token, owner=True)
        # The key cannot be claimed; a token that is nowhere makes the fill come to nothing.
        return self._lease(token or secrets.token_bytes(16), owner=False)

    def answer(self, data: bytes) -> tuple[Any, bool]:
        """Return the value for what the key holds and True, or False where that is no answer."""
        return self._look(data, lambda _key: None)

    def in_memory(self, store: MemoryStore) -> Any:
        found, known = self._look(store.read(self.key), store.read)
        if known:
            return found
        token = secrets.token_bytes(16)
        store.write(self.key, MARKER + token, self.milliseconds)
        return self._lease(token, owner=True)

    def remember(self, journal: Journal) -> None:
        # A marker that was placed and not answered for would hold up who waits for its owner.
        if self.claimed is not None:
            journal.add_key(self.key, self.context.keyspace)

    def _look(self, data: bytes | None, read: Lookup) -> tuple[Any, bool]:
        """Return what was found and True, or None and False when the key is to be claimed."""
        if data is None:
            return None, False
        if data.startswith(MARKER):
            return self._lease(data[len(MARKER) :], owner=False), True
        encoded = living(data, read)
        if encoded is None:
            return None, False
        try:
            value = self.context.codec.decode(encoded)
        except UnreadableValueError:
            self.error()
            return None, False
        record(self.context.namespace, "hits")
        return value, True

    def _lease(self, token: bytes, owner: bool) -> Lease:
        record(self.context.namespace, "misses")
        return Lease(token, owner)


class Fill(Single[bool]):
    """Store a value if the key still holds the marker of the lease; tells whether it did."""

    __slots__ = ("data", "lease", "milliseconds")

    def __init__(
        self, context: Context, key: str, lease: Lease, data: bytes, milliseconds: int | None
    ) -> None:
        super().__init__(context, key)
        self.lease = lease
        self.data = data
        self.milliseconds = milliseconds

    def command(self) -> Command:
        marker = MARKER + self.lease.token
        return lua.SWAP([raw(self.key)], marker, self.data, px(self.milliseconds))

    def parse(self, reply: Any) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if store.read(self.key) != MARKER + self.lease.token:
            return False
        store.write(self.key, self.data, self.milliseconds)
        return self.parse(True)


class Release(Single[bool]):
    """Give a lease back without storing anything; tells whether it was still held."""

    __slots__ = ("lease",)

    def __init__(self, context: Context, key: str, lease: Lease) -> None:
        super().__init__(context, key)
        self.lease = lease

    def command(self) -> Command:
        return tag_lua.FORGET([raw(self.key)], self._identity())

    def parse(self, reply: Any) -> bool:
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        held = (store.read(self.key) or b"").startswith(self._identity())
        if held:
            store.drop(self.key)
        return held

    def _identity(self) -> bytes:
        # The tokens of tags that follow need not be known to who was cancelled.
        return (MARKER + self.lease.token)[:NONCE_END]
