# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations that are answered from the near cache, and leave copies of what they read in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

from cache_layer.backends.encoding import ENVELOPE, MARKER, UnreadableValueError
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near.cache import NearCache
from cache_layer.backends.operations.base import Command, Operation, Read, Steps, raw
from cache_layer.backends.operations.batches import GetMany
from cache_layer.metrics import NEAR_HITS, record

T = TypeVar("T")


class Near(Operation[T], Generic[T]):
    """Does an operation with the near cache.

    The time that keys have left is asked for in the same round trip as what they hold.
    """

    __slots__ = ("near",)
    writes = False

    def found(self) -> tuple[T] | None:
        """Return the result if the near cache has all of it."""
        raise TypeError(f"{type(self).__name__} does not look into the near cache")


class NearRead(Near[T]):
    """A ``Read``."""

    __slots__ = ("read",)

    def __init__(self, near: NearCache, read: Read[T]) -> None:
        self.context = read.context
        self.near = near
        self.read = read

    def found(self) -> tuple[T] | None:
        held = self.near.find(self.read.reads)
        if held is None:
            return None
        answered, value = self.read.answer(held)
        if not answered:
            return None
        _recount(self.context.namespace, 1)
        return (cast("T", value),)

    def steps(self) -> Steps[T]:
        read = self.read
        keys = read.reads
        mark = self.near.expect(keys)
        try:
            reply, *left = yield [read.command(), *_lifetimes(keys)]
            if isinstance(reply, Exception):
                return read.rejected()
            if mark is not None:
                held = reply if isinstance(reply, list) else [reply]
                if self._worth_keeping(held) and _are_numbers(left):
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


class NearMany(Near[dict[Any, Any]]):
    """A ``GetMany``: Redis is asked for what is not here."""

    __slots__ = ("here", "many")
    long = True

    def __init__(self, near: NearCache, many: GetMany) -> None:
        self.context = many.context
        self.near = near
        self.many = many
        # Envelopes, which begin with NUL, count together with their tags only.
        self.here = [data if data and data[0] else None for data in near.some(many.keys)]

    def found(self) -> tuple[dict[Any, Any]] | None:
        if None in self.here:
            return None
        found = self.many.decode(self.here, lambda _key: None)
        _recount(self.context.namespace, len(self.here))
        return (found,)

    def steps(self) -> Steps[dict[Any, Any]]:
        many = self.many
        asked = [number for number, data in enumerate(self.here) if data is None]
        keys = [many.keys[number] for number in asked]
        mark = self.near.expect(keys)
        lifetimes = () if mark is None else _lifetimes(keys)
        try:
            read, left = yield from many.execute(keys, lifetimes)
            if read is None:
                return {}
            tokens = yield from many.tokens(read)
            held = self.here.copy()
            for number, data in zip(asked, read, strict=True):
                held[number] = data
            found = many.decode(held, tokens.get)
            if len(asked) < len(held):
                _recount(self.context.namespace, len(held) - len(asked))
            if mark is not None and _are_numbers(left):
                # Only what could be decoded.
                kept = [
                    data if _is_value(data) and many.names[number] in found else None
                    for number, data in zip(asked, read, strict=True)
                ]
                self.near.keep(mark, keys, kept, left)
            return found
        finally:
            if mark is not None:
                self.near.forget(mark, keys)

    def in_memory(self, store: MemoryStore) -> dict[Any, Any]:
        return self.many.in_memory(store)


def near_twin(near: NearCache, operation: Operation[T]) -> Near[T] | None:
    """Return what does an operation with the near cache; None for those that it cannot answer."""
    if isinstance(operation, Read):
        # One that writes has to reach Redis.
        return None if operation.writes else NearRead(near, operation)
    return cast("Near[T]", NearMany(near, operation)) if isinstance(operation, GetMany) else None


def _lifetimes(keys: Sequence[str]) -> list[Command]:
    return [("PTTL", raw(key)) for key in keys]


def _are_numbers(replies: Iterable[Any]) -> bool:
    return all(type(each) is int for each in replies)


def _is_value(data: Any) -> bool:
    """Tell whether what a key holds is a value, and depends on no tags."""
    return type(data) is bytes and not data.startswith((MARKER, ENVELOPE))


def _recount(namespace: str, hits: int) -> None:
    """Count hits, which were counted already, as those of the near cache."""
    record(namespace, NEAR_HITS, hits)
    record(namespace, "hits", -hits)
