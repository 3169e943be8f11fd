# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations on many keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache_layer.backends.encoding import Lookup, UnreadableValueError, living, named_tags
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
    raws,
)
from cache_layer.journal import Journal
from cache_layer.metrics import record

#: Values by the names that the caller gave.
Values = dict[Any, Any]


class GetMany(Operation[Values]):
    """Read the values of the keys that hold one, by the names that the caller gave."""

    __slots__ = ("keys", "names")
    refusal = Refusal.OUTAGE
    writes = False
    long = True

    def __init__(self, context: OperationContext, keys: list[str], names: Sequence[object]) -> None:
        self.context = context
        self.keys = keys
        self.names = names

    def steps(self) -> Steps[Values]:
        held, _ = yield from self.execute(self.keys)
        if held is None:
            return {}
        tokens = yield from self.tokens(held)
        return self.decode(held, tokens.get)

    def execute(
        self, keys: list[str], also: Sequence[Command] = ()
    ) -> Steps[tuple[list[bytes | None] | None, list[Reply]]]:
        """Read the bytes of keys and run further commands; return None if Redis refuses."""
        if not keys:
            return [], []
        questions = [("MGET", *raws(chunk)) for chunk in chunks(keys)]
        replies = yield [*questions, *also]
        held: list[bytes | None] = []
        for reply in replies[: len(questions)]:
            if isinstance(reply, Exception):
                return None, []
            held += reply
        return held, replies[len(questions) :]

    def tokens(self, held: Iterable[bytes | None]) -> Steps[dict[str, bytes | None]]:
        """Read the tokens of the tags in envelopes."""
        tokens: dict[str, bytes | None] = {}
        # Only envelopes and markers begin with NUL.
        odd = [data for data in held if data and not data[0]]
        if odd and (tags := named_tags(odd)):
            for chunk in chunks(tags):
                (reply,) = yield [("MGET", *map(raw, chunk))]
                tokens.update(zip(chunk, reply, strict=True))
        return tokens

    def in_memory(self, store: MemoryStore) -> Values:
        return self.decode([store.read(key) for key in self.keys], store.read)

    def decode(self, held: Sequence[bytes | None], read: Lookup) -> Values:
        """Return the values in the bytes of the keys."""
        found = {}
        decode = self.context.codec.decode
        for name, data in zip(self.names, held, strict=True):
            # Most are encoded values without an envelope.
            if not (data and data[0]):
                data = living(data, read)
                if data is None:
                    continue
            try:
                found[name] = decode(data)
            except UnreadableValueError:
                self.error()
        if found:
            record(self.context.namespace, "hits", len(found))
        if len(found) < len(held):
            record(self.context.namespace, "misses", len(held) - len(found))
        return found


class SetMany(Operation[list[str]]):
    """Store several values; returns the keys that were not stored.

    There are none: SET fits whatever a key holds, so a refusal is one of all of them.
    """

    __slots__ = ("entries", "milliseconds")
    refusal = Refusal.OUTAGE
    long = True

    def __init__(
        self, context: OperationContext, entries: Mapping[str, bytes], milliseconds: int | None
    ) -> None:
        self.context = context
        self.entries = entries
        self.milliseconds = milliseconds

    def steps(self) -> Steps[list[str]]:
        expiry = () if self.milliseconds is None else ("PX", self.milliseconds)
        keys = raws(list(self.entries))
        for chunk in chunks(list(zip(keys, self.entries.values(), strict=True))):
            # A name in bytes keeps redis-py from converting the replies, which saves a call for
            # each.
            yield [(b"SET", key, data, *expiry) for key, data in chunk]
        return self._stored()

    def in_memory(self, store: MemoryStore) -> list[str]:
        for key, data in self.entries.items():
            store.write(key, data, self.milliseconds)
        return self._stored()

    def remember(self, journal: Journal) -> None:
        for key in self.entries:
            journal.add_key(key, self.context.keyspace)

    def _stored(self) -> list[str]:
        record(self.context.namespace, "sets", len(self.entries))
        return []


class DeleteMany(Operation[int]):
    """Delete keys; returns how many held a value."""

    __slots__ = ("keys",)
    refusal = Refusal.OUTAGE
    long = True

    def __init__(self, context: OperationContext, keys: list[str]) -> None:
        self.context = context
        self.keys = keys

    def steps(self) -> Steps[int]:
        deleted = 0
        for chunk in chunks(self.keys):
            (reply,) = yield [lua.DELETE([raw(key) for key in chunk])]
            if isinstance(reply, Exception):
                self.error()
            else:
                deleted += reply
        return self._count(deleted)

    def in_memory(self, store: MemoryStore) -> int:
        deleted = 0
        for key in self.keys:
            deleted += held(store, key) is not None
            store.drop(key)
        return self._count(deleted)

    def remember(self, journal: Journal) -> None:
        for key in self.keys:
            journal.add_key(key, self.context.keyspace)

    def _count(self, deleted: int) -> int:
        if deleted:
            record(self.context.namespace, "deletes", deleted)
        return deleted
