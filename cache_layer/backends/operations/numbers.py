# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Adding to an integer."""

from __future__ import annotations

from cache_layer.backends.context import Context
from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import living, named_tags, with_payload
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import Operation, Steps, held, px, raw
from cache_layer.exceptions import NotAnIntegerError
from cache_layer.journal import Journal


class Increment(Operation[int]):
    """Add to an integer in one atomic step.

    ``creates``: whether a missing key starts at the amount, with ``milliseconds`` to live;
    otherwise a missing key raises ValueError. An existing key keeps its expiry. Numbers of any
    size work: what INCRBY cannot do (64 bits) is done by compare and swap.
    """

    __slots__ = ("amount", "creates", "key", "milliseconds")

    def __init__(
        self, context: Context, key: str, amount: int, creates: bool, milliseconds: int | None
    ) -> None:
        self.context = context
        self.key = key
        self.amount = amount
        self.creates = creates
        self.milliseconds = milliseconds

    def steps(self) -> Steps[int]:
        key = raw(self.key)
        create = px(self.milliseconds) if self.creates else "no"
        start = self.context.codec.encode(self.key, self.amount)
        while True:
            (reply,) = yield [lua.INCREMENT([key], self.amount, start, create)]
            if reply is None:
                raise self._missing()
            if not isinstance(reply, Exception):
                return self._number(reply)
            (data,) = yield [("GET", key)]
            if isinstance(data, Exception):
                raise self._not_an_integer()
            tokens: dict[str, bytes | None] = {}
            if tags := named_tags([data]):
                (replies,) = yield [("MGET", *map(raw, tags))]
                tokens = dict(zip(tags, replies, strict=True))
            encoded = living(data, tokens.get)
            if encoded is not None:
                total = self._number(encoded) + self.amount
                changed = with_payload(data, self.context.codec.encode(self.key, total))
                (swapped,) = yield [lua.SWAP([key], data, changed, "keep")]
                if swapped:
                    return total

    def in_memory(self, store: MemoryStore) -> int:
        codec = self.context.codec
        data = held(store, self.key)
        if data is None:
            if not self.creates:
                raise self._missing()
            store.write(self.key, codec.encode(self.key, self.amount), self.milliseconds)
            return self.amount
        total = self._number(data) + self.amount
        before = store.read(self.key) or b""
        store.replace(self.key, with_payload(before, codec.encode(self.key, total)))
        return total

    def remember(self, journal: Journal) -> None:
        journal.add_key(self.key, self.context.keyspace)

    def _number(self, data: bytes) -> int:
        try:
            value = self.context.codec.decode(data)
        except UnreadableValueError:
            self.error()
            raise self._not_an_integer() from None
        if type(value) is not int:
            raise self._not_an_integer()
        return value

    def _not_an_integer(self) -> NotAnIntegerError:
        return NotAnIntegerError(
            f"The value of key {self.key!r} is not an integer, so nothing can be added to it."
        )

    def _missing(self) -> ValueError:
        return ValueError(f"Key {self.key!r} not found")
