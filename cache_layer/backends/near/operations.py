# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations that the near cache answers, and that keep values read from Redis there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, cast

from cache_layer.backends.encoding import ENVELOPE, MARKER, UnreadableValueError
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near.cache import NearCache
from cache_layer.backends.operations.base import (
    Command,
    Detour,
    Operation,
    Read,
    Refusal,
    Reply,
    Steps,
    raw,
)
from cache_layer.backends.operations.batches import GetMany, Values
from cache_layer.metrics import NEAR_HITS, record

T = TypeVar("T")


class NearOperation(Operation[T], Generic[T]):
    """An operation that uses the near cache.

    The expiry of keys is read in the same round trip as their bytes.
    """

    __slots__ = ("near",)
    writes = False

    def found(self) -> tuple[T] | None:
        """Return the result, in a tuple, if the near cache has all of it."""
        raise TypeError(f"{type(self).__name__} does not look into the near cache")


class NearRead(NearOperation[T]):
    """A ``Read``, answered by its keys' entries."""

    __slots__ = ("read",)
    refusal = Refusal.PASSED

    def __init__(self, near: NearCache, read: Read[T]) -> None:
        self.context = read.context
        self.near = near
        self.read = read

    def found(self) -> tuple[T] | None:
        held = self.near.find(self.read.reads)
        if None in held:
            return None
        answered, value = self.read.answer(held)
        if not answered:
            return None
        _recount(self.context.namespace, 1)
        return (cast("T", value),)

    def steps(self) -> Steps[T]:
        read = self.read
        keys = read.reads
        pending = self.near.begin_read(keys)
        try:
            reply, *left = yield [read.command(), *_lifetimes(keys)]
            if isinstance(reply, Exception):
                # The read itself handles the refusal.
                raise Detour(read)
            if pending is not None:
                held = reply if isinstance(reply, list) else [reply]
                if self._is_cacheable(held) and _are_numbers(left):
                    self.near.commit_read(pending, keys, held, left)
            return read.parse(reply)
        finally:
            if pending is not None:
                self.near.cancel_read(pending, keys)

    def in_memory(self, store: MemoryStore) -> T:
        return self.read.in_memory(store)

    def _is_cacheable(self, held: list[Reply]) -> bool:
        """Return whether the first key holds a value, and each other key a tag's token."""
        data, *tokens = held
        if data is None or data.startswith(MARKER) or None in tokens:
            return False
        if tokens or data.startswith(ENVELOPE):
            # An envelope is a value together with its tags only.
            return bool(tokens) and data.startswith(ENVELOPE)
        try:
            self.context.codec.decode(data)
        except UnreadableValueError:
            return False
        return True


class NearMany(NearOperation[Values]):
    """A ``GetMany``: Redis is asked for the keys that have no entry."""

    __slots__ = ("here", "many")
    refusal = Refusal.PASSED
    long = True

    def __init__(self, near: NearCache, many: GetMany) -> None:
        self.context = many.context
        self.near = near
        self.many = many
        # An envelope, which begins with NUL, is a value together with its tags only.
        self.here = [data if data and data[0] else None for data in near.find(many.keys)]

    def found(self) -> tuple[Values] | None:
        if None in self.here:
            return None
        found = self.many.decode(self.here, lambda _key: None)
        _recount(self.context.namespace, len(self.here))
        return (found,)

    def steps(self) -> Steps[Values]:
        many = self.many
        asked = [number for number, data in enumerate(self.here) if data is None]
        keys = [many.keys[number] for number in asked]
        pending = self.near.begin_read(keys)
        lifetimes = () if pending is None else _lifetimes(keys)
        try:
            read, left = yield from many.execute(keys, lifetimes)
            if read is None:
                raise Detour(many)
            tokens = yield from many.tokens(read)
            held = self.here.copy()
            for number, data in zip(asked, read, strict=True):
                held[number] = data
            found = many.decode(held, tokens.get)
            if len(asked) < len(held):
                _recount(self.context.namespace, len(held) - len(asked))
            if pending is not None and _are_numbers(left):
                # Only values that could be decoded.
                kept = [
                    data if _is_value(data) and many.names[number] in found else None
                    for number, data in zip(asked, read, strict=True)
                ]
                self.near.commit_read(pending, keys, kept, left)
            return found
        finally:
            if pending is not None:
                self.near.cancel_read(pending, keys)

    def in_memory(self, store: MemoryStore) -> Values:
        return self.many.in_memory(store)


def near_operation(near: NearCache, operation: Operation[T]) -> NearOperation[T] | None:
    """Return the operation that uses the near cache; None if that cannot answer it."""
    if isinstance(operation, Read):
        # A read that writes has to reach Redis.
        return None if operation.writes else NearRead(near, operation)
    if isinstance(operation, GetMany):
        return cast("NearOperation[T]", NearMany(near, operation))
    return None


def _lifetimes(keys: Sequence[str]) -> list[Command]:
    return [("PTTL", raw(key)) for key in keys]


def _are_numbers(replies: Iterable[object]) -> bool:
    return all(type(each) is int for each in replies)


def _is_value(data: object) -> bool:
    """Return whether the bytes of a key are a value without tags."""
    return type(data) is bytes and not data.startswith((MARKER, ENVELOPE))


def _recount(namespace: str, hits: int) -> None:
    """Count hits of the near cache, which were counted as ordinary hits before."""
    record(namespace, NEAR_HITS, hits)
    record(namespace, "hits", -hits)
