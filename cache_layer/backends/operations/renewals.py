# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Renewing a value behind its readers. All of it fails once the value was invalidated."""

from __future__ import annotations

import time
from typing import Any

from cache_layer.backends.context import Context
from cache_layer.backends.envelope import (
    CLAIM_END,
    FRESH_END,
    NONCE_END,
    digits,
    seal,
)
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import tag_lua
from cache_layer.backends.operations.base import Command, Single, cover, held, px, raw
from cache_layer.backends.operations.results import StaleValue
from cache_layer.metrics import record


class _OfAged(Single[bool]):
    """Something done to the envelope of an aged value, while it is still there and valid."""

    __slots__ = ("aged",)

    def __init__(self, context: Context, key: str, aged: StaleValue) -> None:
        super().__init__(context, key)
        self.aged = aged

    def parse(self, reply: Any) -> bool:
        return bool(reply)

    def there(self, store: MemoryStore) -> bytes | None:
        """Return the envelope, if it is still there and valid."""
        data = store.read(self.key)
        if data is None or data[:NONCE_END] != self.aged.identity:
            return None
        return None if held(store, self.key) is None else data


class ClaimRefresh(_OfAged):
    """Keep everybody else from renewing a value for some time; tells whether that was possible.

    Of all who try at once, one succeeds. ``again``: who has succeeded sets another time.
    """

    __slots__ = ("again", "milliseconds")

    def __init__(
        self, context: Context, key: str, aged: StaleValue, milliseconds: int, *, again: bool
    ) -> None:
        super().__init__(context, key, aged)
        self.milliseconds = milliseconds
        self.again = again

    def command(self) -> Command:
        again = "again" if self.again else ""
        identity = self.aged.identity
        return tag_lua.POSTPONE([raw(self.key)], identity, self.milliseconds, again)

    def in_memory(self, store: MemoryStore) -> bool:
        data = self.there(store)
        now = int(time.time() * 1000)
        if data is None or (not self.again and digits(now) < data[FRESH_END:CLAIM_END]):
            return False
        until = digits(now + self.milliseconds)
        store.replace(self.key, data[:FRESH_END] + until + data[CLAIM_END:])
        return True


class Renew(_OfAged):
    """Store another value under the same tags; tells whether it did."""

    __slots__ = ("envelope", "milliseconds")

    def __init__(
        self,
        context: Context,
        key: str,
        aged: StaleValue,
        data: bytes,
        milliseconds: int | None,
        fresh_until: int,
    ) -> None:
        super().__init__(context, key, aged)
        self.envelope = seal(aged.section, data, fresh_until)
        self.milliseconds = milliseconds

    def command(self) -> Command:
        identity = self.aged.identity
        return tag_lua.RENEW([raw(self.key)], identity, self.envelope, px(self.milliseconds))

    def parse(self, reply: Any) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if self.there(store) is None:
            return False
        cover(store, self.envelope, self.milliseconds)
        store.write(self.key, self.envelope, self.milliseconds)
        return self.parse(True)


class Forget(_OfAged):
    """Delete the value, if it is still the same; tells whether it did."""

    __slots__ = ()

    def command(self) -> Command:
        return tag_lua.FORGET([raw(self.key)], self.aged.identity)

    def in_memory(self, store: MemoryStore) -> bool:
        if self.there(store) is None:
            return False
        store.drop(self.key)
        return True
