# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations on one key: read, store, delete, expire, move."""

from __future__ import annotations

from typing import Any

from cache_layer.backends import scripts
from cache_layer.backends.context import Context
from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import (
    Command,
    Operation,
    Single,
    Steps,
    Writing,
    living,
    px,
    raw,
)
from cache_layer.backends.scripts import MARKER
from cache_layer.journal import Journal
from cache_layer.metrics import record


class Get(Single[Any]):
    """The value of a key, or the default."""

    __slots__ = ("default",)
    writes = False

    def __init__(self, context: Context, key: str, default: Any = None) -> None:
        self.context = context
        self.key = key
        self.default = default

    def command(self) -> Command:
        return ("GET", self.key.encode("utf-8", "surrogatepass"))

    def parse(self, reply: bytes | None) -> Any:
        context = self.context
        if reply is None or reply.startswith(MARKER):
            record(context.namespace, "misses")
            return self.default
        try:
            value = context.codec.decode(reply)
        except UnreadableValueError:
            return self.rejected()
        record(context.namespace, "hits")
        return value

    def in_memory(self, store: MemoryStore) -> Any:
        return self.parse(store.read(self.key))


class HasKey(Single[bool]):
    """Whether a key holds a value, be it None."""

    __slots__ = ()
    writes = False

    def command(self) -> Command:
        return ("GETRANGE", raw(self.key), 0, 1)

    def parse(self, reply: bytes | None) -> bool:
        return bool(reply) and reply != MARKER

    def in_memory(self, store: MemoryStore) -> bool:
        return living(store.read(self.key)) is not None


class Free(HasKey):
    """Whether a key is missing: what adding a value that expires at once amounts to."""

    __slots__ = ()

    def parse(self, reply: bytes | None) -> bool:
        return not super().parse(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        return not super().in_memory(store)


class Remaining(Operation[int | None]):
    """The milliseconds a key has left: -1 when it never expires, None when it is missing."""

    __slots__ = ("key",)
    writes = False

    def __init__(self, context: Context, key: str) -> None:
        self.context = context
        self.key = key

    def steps(self) -> Steps[int | None]:
        key = raw(self.key)
        left, head = yield [("PTTL", key), ("GETRANGE", key, 0, 1)]
        if isinstance(left, Exception) or isinstance(head, Exception):
            self.error()
            return None
        return None if left == -2 or head in (b"", MARKER) else int(left)

    def in_memory(self, store: MemoryStore) -> int | None:
        if living(store.read(self.key)) is None:
            return None
        left = store.remaining(self.key)
        return -1 if left is None else left


class Set(Writing[bool]):
    """Store a value."""

    __slots__ = ("data", "milliseconds")

    def __init__(self, context: Context, key: str, data: bytes, milliseconds: int | None) -> None:
        super().__init__(context, key)
        self.data = data
        self.milliseconds = milliseconds

    def command(self) -> Command:
        if self.milliseconds is None:
            return ("SET", raw(self.key), self.data)
        return ("SET", raw(self.key), self.data, "PX", self.milliseconds)

    def parse(self, reply: Any) -> bool:
        if reply:
            record(self.context.namespace, "sets")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        store.write(self.key, self.data, self.milliseconds)
        return self.parse(True)


class Add(Set):
    """Store a value where there is none; tells whether it did."""

    __slots__ = ()

    def command(self) -> Command:
        return scripts.ADD([raw(self.key)], self.data, px(self.milliseconds))

    def in_memory(self, store: MemoryStore) -> bool:
        if living(store.read(self.key)) is not None:
            return False
        return super().in_memory(store)


class Drop(Writing[bool]):
    """Delete a key; tells whether it held a value."""

    __slots__ = ()

    def command(self) -> Command:
        return scripts.DROP([raw(self.key)])

    def parse(self, reply: Any) -> bool:
        if reply:
            record(self.context.namespace, "deletes")
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        held = living(store.read(self.key)) is not None
        store.drop(self.key)
        return self.parse(held)


class Discard(Drop):
    """Storing a value that expires at once: the key is gone, and nothing was stored."""

    __slots__ = ()

    def parse(self, reply: Any) -> bool:
        return False


class Expire(Writing[bool]):
    """Change the expiry of a key; tells whether it holds a value."""

    __slots__ = ("milliseconds",)

    def __init__(self, context: Context, key: str, milliseconds: int | None) -> None:
        super().__init__(context, key)
        self.milliseconds = milliseconds

    def command(self) -> Command:
        return scripts.EXPIRE([raw(self.key)], px(self.milliseconds))

    def parse(self, reply: Any) -> bool:
        return bool(reply)

    def in_memory(self, store: MemoryStore) -> bool:
        if living(store.read(self.key)) is None:
            return False
        store.expire(self.key, self.milliseconds)
        return True


class Rename(Operation[bool]):
    """Move a value with its expiry to another key; tells whether there was one."""

    __slots__ = ("new", "old")

    def __init__(self, context: Context, old: str, new: str) -> None:
        self.context = context
        self.old = old
        self.new = new

    def steps(self) -> Steps[bool]:
        (moved,) = yield [scripts.RENAME([raw(self.old), raw(self.new)])]
        if isinstance(moved, Exception):
            self.error()
            return False
        return bool(moved)

    def in_memory(self, store: MemoryStore) -> bool:
        if living(store.read(self.old)) is None:
            return False
        store.rename(self.old, self.new)
        return True

    def remember(self, journal: Journal) -> None:
        journal.add_key(self.old, self.context.scope)
        journal.add_key(self.new, self.context.scope)
