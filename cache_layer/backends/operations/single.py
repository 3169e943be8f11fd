# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations on one key: read, store, delete, expire, move, add to a number."""

from __future__ import annotations

from cache_layer.aliases import Value
from cache_layer.backends.encoding import (
    MARKER,
    NO_VALUE,
    UnreadableValueError,
    living,
    named_tags,
    with_payload,
)
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    Command,
    Detour,
    Operation,
    OperationContext,
    Read,
    Refusal,
    Reply,
    Single,
    Steps,
    Writing,
    cover,
    held,
    px,
    raw,
)
from cache_layer.exceptions import NotAnIntegerError
from cache_layer.journal import Journal
from cache_layer.metrics import record


class Get(Read[Value]):
    """Return the value of a key, or the default."""

    __slots__ = ("default",)
    refusal = Refusal.OUTAGE

    def __init__(self, context: OperationContext, key: str, default: object = None) -> None:
        self.context = context
        self.key = key
        self.default = default

    def command(self) -> Command:
        return ("GET", self.key.encode("utf-8", "surrogatepass"))

    def parse(self, reply: bytes | None) -> Value:
        context = self.context
        if reply is None or reply.startswith(NO_VALUE):
            if reply is None or reply.startswith(MARKER):
                record(context.namespace, "misses")
                return self.default
            if tags := named_tags([reply]):
                raise Detour(_GetUnderTags(self, reply, tags))
            reply = living(reply, lambda _key: None) or b""
        try:
            value = context.codec.decode(reply)
        except UnreadableValueError:
            return self.rejected()
        record(context.namespace, "hits")
        return value

    def in_memory(self, store: MemoryStore) -> Value:
        return self.parse(held(store, self.key))


class _GetUnderTags(Single[Value]):
    """The rest of a ``Get`` that met an envelope."""

    __slots__ = ("data", "get", "tags")
    refusal = Refusal.OUTAGE
    writes = False

    def __init__(self, get: Get, data: bytes, tags: list[str]) -> None:
        super().__init__(get.context, get.key)
        self.get = get
        self.data = data
        self.tags = tags

    def command(self) -> Command:
        return ("MGET", *map(raw, self.tags))

    def parse(self, reply: list[bytes | None] | None) -> Value:
        tokens = dict(zip(self.tags, reply or (), strict=False))
        return self.get.parse(living(self.data, tokens.get))

    def in_memory(self, store: MemoryStore) -> Value:
        return self.get.in_memory(store)


class HasKey(Single[bool]):
    """Tell whether a key holds a value, None included."""

    __slots__ = ()
    refusal = Refusal.OUTAGE
    writes = False

    def command(self) -> Command:
        return lua.HOLDS([raw(self.key)])

    def parse(self, reply: int | None) -> bool:
        return reply == 1

    def in_memory(self, store: MemoryStore) -> bool:
        return held(store, self.key) is not None


class IsMissing(HasKey):
    """Tell whether a key is missing: the result of adding a value that expires at once."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def parse(self, reply: int | None) -> bool:
        return not super().parse(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        return not super().in_memory(store)


class Remaining(Single[int | None]):
    """Return the milliseconds a key has left: -1 if it never expires, None if it is missing."""

    __slots__ = ()
    refusal = Refusal.ERROR
    writes = False

    def command(self) -> Command:
        return lua.REMAINING([raw(self.key)])

    def parse(self, reply: int | None) -> int | None:
        return None if reply == -2 else reply

    def in_memory(self, store: MemoryStore) -> int | None:
        if held(store, self.key) is None:
            return None
        left = store.remaining(self.key)
        return -1 if left is None else left


class Set(Writing[bool]):
    """Store a value."""

    __slots__ = ("data", "milliseconds")
    refusal = Refusal.OUTAGE

    def __init__(
        self, context: OperationContext, key: str, data: bytes, milliseconds: int | None
    ) -> None:
        super().__init__(context, key)
        self.data = data
        self.milliseconds = milliseconds

    def command(self) -> Command:
        if self.milliseconds is None:
            return ("SET", raw(self.key), self.data)
        return ("SET", raw(self.key), self.data, "PX", self.milliseconds)

    def parse(self, reply: Reply) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        store.write(self.key, self.data, self.milliseconds)
        return self.parse(True)


class Add(Set):
    """Store a value if the key is missing; tells whether it was."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def command(self) -> Command:
        return lua.ADD([raw(self.key)], self.data, px(self.milliseconds))

    def in_memory(self, store: MemoryStore) -> bool:
        if held(store, self.key) is not None:
            return False
        return super().in_memory(store)


class Delete(Writing[bool]):
    """Delete a key; tells whether it held a value."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def command(self) -> Command:
        return lua.DELETE([raw(self.key)])

    def parse(self, reply: Reply) -> bool:
        if reply:
            record(self.context.namespace, "deletes")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        there = held(store, self.key) is not None
        store.drop(self.key)
        return self.parse(there)


class SetExpired(Delete):
    """Store a value that expires at once: delete the key, and store nothing."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def parse(self, reply: Reply) -> bool:
        return False


class Expire(Writing[bool]):
    """Change the expiry of a key; tells whether it holds a value."""

    __slots__ = ("milliseconds",)
    refusal = Refusal.OUTAGE

    def __init__(self, context: OperationContext, key: str, milliseconds: int | None) -> None:
        super().__init__(context, key)
        self.milliseconds = milliseconds

    def command(self) -> Command:
        return lua.EXPIRE([raw(self.key)], px(self.milliseconds))

    def parse(self, reply: Reply) -> bool:
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if held(store, self.key) is None:
            return False
        cover(store, store.read(self.key), self.milliseconds)
        store.expire(self.key, self.milliseconds)
        return True

    def remember(self, journal: Journal) -> None:
        """See ``Operation.remember``."""
        journal.add_value(self.key, self.context.keyspace)


class Rename(Operation[bool]):
    """Move a value with its expiry to another key; tells whether there was one."""

    __slots__ = ("new", "old")
    refusal = Refusal.ERROR

    def __init__(self, context: OperationContext, old: str, new: str) -> None:
        self.context = context
        self.old = old
        self.new = new

    def steps(self) -> Steps[bool]:
        (moved,) = yield [lua.RENAME([raw(self.old), raw(self.new)])]
        if isinstance(moved, Exception):
            self.error()
            return False
        return bool(moved)

    def in_memory(self, store: MemoryStore) -> bool:
        if held(store, self.old) is None:
            return False
        store.rename(self.old, self.new)
        return True

    def remember(self, journal: Journal) -> None:
        journal.add_value(self.old, self.context.keyspace)
        journal.add_value(self.new, self.context.keyspace)


class Increment(Operation[int]):
    """Add to an integer in one atomic step.

    ``creates``: whether a missing key starts at the amount, with ``milliseconds`` to live;
    otherwise a missing key raises ValueError. An existing key keeps its expiry. Numbers may have
    any size: beyond the 64 bits of INCRBY, compare and swap changes them.
    """

    __slots__ = ("amount", "creates", "key", "milliseconds")
    # Memory would count from nothing.
    refusal = Refusal.ERROR

    def __init__(
        self,
        context: OperationContext,
        key: str,
        amount: int,
        creates: bool,
        milliseconds: int | None,
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
