# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""A read that leaves copies in the near cache."""

from __future__ import annotations

from typing import Any, TypeVar

from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import ENVELOPE, MARKER
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near import NearCache
from cache_layer.backends.operations.base import Operation, Read, Steps, raw

T = TypeVar("T")


class NearRead(Operation[T]):
    """Does a ``Read``; the time that its keys have left is asked for in the same round trip."""

    __slots__ = ("near", "read")
    writes = False

    def __init__(self, near: NearCache, read: Read[T]) -> None:
        self.context = read.context
        self.near = near
        self.read = read

    def steps(self) -> Steps[T]:
        read = self.read
        keys = read.reads
        mark = self.near.expect(keys)
        try:
            reply, *left = yield [read.command(), *[("PTTL", raw(key)) for key in keys]]
            if isinstance(reply, Exception):
                return read.rejected()
            if mark is not None:
                held = reply if isinstance(reply, list) else [reply]
                if self._worth_keeping(held) and all(type(each) is int for each in left):
                    self.near.keep(mark, keys, held, left)
            return read.parse(reply)
        finally:
            if mark is not None:
                self.near.forget(mark, keys)

    def in_memory(self, store: MemoryStore) -> T:
        return self.read.in_memory(store)

    def _worth_keeping(self, held: list[Any]) -> bool:
        """Tell whether the first key holds a value, and each other key a tag's token."""
        data, *tokens = held
        if data is None or data.startswith(MARKER) or None in tokens:
            return False
        if tokens or data.startswith(ENVELOPE):
            # An envelope counts together with its tags only.
            return bool(tokens) and data.startswith(ENVELOPE)
        try:
            self.context.codec.decode(data)
        except UnreadableValueError:
            return False
        return True
