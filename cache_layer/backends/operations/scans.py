# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations that find keys by pattern, with scans in large steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cache_layer.backends.encoding import is_tag
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    Command,
    Operation,
    OperationContext,
    Refusal,
    Reply,
    Steps,
    chunks,
    held,
    raw,
)
from cache_layer.globs import glob_match
from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace
from cache_layer.metrics import record

#: Number of keys that Redis examines in one step, which takes about a millisecond.
STEP: Final = 2000


class ScanKeys(Operation[list[str]]):
    """The full keys that match a pattern and hold a value, each once, in no order."""

    __slots__ = ("count", "pattern")
    refusal = Refusal.ERROR
    lists_keys = True
    writes = False
    long = True

    def __init__(self, context: OperationContext, pattern: str, count: int = STEP) -> None:
        self.context = context
        self.pattern = pattern
        self.count = count

    def steps(self) -> Steps[list[str]]:
        seen: set[str] = set()
        cursor = 0
        while True:
            cursor, found = yield from ScanPage(
                self.context, self.pattern, self.count, cursor
            ).steps()
            seen.update(found)
            if not cursor:
                return list(seen)

    def in_memory(self, store: MemoryStore) -> list[str]:
        return [
            key
            for key in store.listed()
            if glob_match(self.pattern, key) and held(store, key) is not None
        ]


class ScanPage(Operation[tuple[int, list[str]]]):
    """One step of ``ScanKeys``: the next cursor, 0 at the end, and keys, some of them twice."""

    __slots__ = ("count", "cursor", "pattern")
    refusal = Refusal.ERROR
    lists_keys = True
    writes = False
    long = True

    def __init__(self, context: OperationContext, pattern: str, count: int, cursor: int) -> None:
        self.context = context
        self.pattern = pattern
        self.count = count
        self.cursor = cursor

    def steps(self) -> Steps[tuple[int, list[str]]]:
        ((cursor, found),) = yield [_scan(self.cursor, self.pattern, self.count)]
        if (keyspace := self.context.keyspace) is not None:
            found = keyspace.callers(found)
        keys: list[str | None] = []
        for chunk in chunks(found):
            (alive,) = yield [lua.LIVING(chunk)]
            keys += [_text(key) for key, held in zip(chunk, alive, strict=True) if held]
        return int(cursor), [key for key in keys if key is not None]

    def in_memory(self, store: MemoryStore) -> tuple[int, list[str]]:
        # Memory lists all keys in one step. With a cursor of Redis, Redis has listed its keys
        # before.
        return 0, ScanKeys(self.context, self.pattern).in_memory(store)


class DeletePattern(Operation[int]):
    """Delete the keys that match a pattern, leases included; returns how many held a value."""

    __slots__ = ("count", "pattern")
    refusal = Refusal.ERROR
    lists_keys = True
    long = True

    def __init__(self, context: OperationContext, pattern: str, count: int = STEP) -> None:
        self.context = context
        self.pattern = pattern
        self.count = count

    def owned(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys to delete among the keys found."""
        keyspace = self.context.keyspace
        return list(keys) if keyspace is None else keyspace.callers(keys)

    def steps(self) -> Steps[int]:
        return self._count((yield from drop_matching(self.pattern, self.owned, self.count)))

    def in_memory(self, store: MemoryStore) -> int:
        found = [
            key
            for key in store.listed()
            if glob_match(self.pattern, key) and self.owned([raw(key)])
        ]
        dropped = sum(held(store, key) is not None for key in found)
        for key in found:
            store.drop(key)
        return self._count(dropped)

    def remember(self, journal: Journal) -> None:
        journal.add_pattern(self.pattern, self.context.keyspace)

    def _count(self, dropped: int) -> int:
        if dropped:
            record(self.context.namespace, "deletes", dropped)
        return dropped


class Clear(DeletePattern):
    """Delete every key of the alias, in all versions, and no other key."""

    __slots__ = ("keyspace",)
    refusal = Refusal.ERROR

    def __init__(self, context: OperationContext, keyspace: Keyspace) -> None:
        super().__init__(context, keyspace.pattern)
        self.keyspace = keyspace

    def owned(self, keys: Iterable[bytes]) -> list[bytes]:
        return self.keyspace.owned(keys)

    def remember(self, journal: Journal) -> None:
        journal.add_keyspace(self.keyspace)


def drop_matching(
    pattern: str, owned: Callable[[list[bytes]], list[bytes]] = list, count: int = STEP
) -> Steps[int]:
    """Delete the keys that match a pattern; each round trip deletes keys and scans further."""
    dropped = 0
    cursor: Reply = 0
    deletions: list[Command] = []
    # Tags last, so that the values that depend on them are still counted.
    tags: list[bytes] = []
    while True:
        *counts, (cursor, found) = yield [*deletions, _scan(cursor, pattern, count)]
        dropped += sum(counts)
        values: list[bytes] = []
        for key in owned(found):
            (tags if is_tag(key) else values).append(key)
        deletions = [lua.DELETE(chunk) for chunk in chunks(values)]
        if not int(cursor):
            break
    deletions += [lua.DELETE(chunk) for chunk in chunks(tags)]
    if deletions:
        dropped += sum((yield deletions))
    return dropped


def sweep(pattern: str, selected: Callable[[list[bytes]], list[bytes]] = list) -> Steps[None]:
    """Delete keys that match a pattern without a look at what they hold.

    Args:
        pattern: The pattern that Redis compares its keys with.
        selected: Returns the keys to delete among those that Redis found.
    """
    cursor: Reply = 0
    deletions: list[Command] = []
    while True:
        *_, (cursor, found) = yield [*deletions, _scan(cursor, pattern, STEP)]
        deletions = [lua.DROP(chunk) for chunk in chunks(selected(found))]
        if not int(cursor):
            break
    if deletions:
        yield deletions


def _scan(cursor: object, pattern: str, count: int) -> Command:
    return ("SCAN", cursor, "MATCH", raw(pattern), "COUNT", count)


def _text(key: bytes) -> str | None:
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # Not a key of the cache: those are text.
        return None
