# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""What brings Redis up to date after an outage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cache_layer.backends.operations import lua
from cache_layer.backends.operations.base import (
    Command,
    Operation,
    OperationContext,
    Steps,
    chunks,
    raw,
)
from cache_layer.backends.operations.scans import RefusedError, drop_matching
from cache_layer.journal import Entries
from cache_layer.keyspace import Keyspace

#: Commands in one round trip.
_PIPELINE = 10


class Replay(Operation[None]):
    """Delete everything that the journal remembered.

    :raises RefusedError: Redis did not do it, so it must not be read yet.
    """

    __slots__ = ("entries",)
    long = True

    def __init__(self, context: OperationContext, entries: Entries) -> None:
        self.context = context
        self.entries = entries

    def steps(self) -> Steps[None]:
        deletions: list[Command] = [
            lua.DELETE([raw(key) for key in chunk]) for chunk in chunks(list(self.entries.keys))
        ]
        for start in range(0, len(deletions), _PIPELINE):
            for reply in (yield deletions[start : start + _PIPELINE]):
                if isinstance(reply, Exception):
                    raise RefusedError from reply
        for pattern in self.entries.patterns:
            yield from drop_matching(pattern)
        for keyspace in self.entries.scopes:
            yield from drop_keyspace(keyspace)


class EndConnections(Operation[None]):
    """End connections of before the outage, by their ids, with all that is still on its way."""

    __slots__ = ("ids",)
    long = True

    def __init__(self, context: OperationContext, ids: list[int]) -> None:
        self.context = context
        self.ids = ids

    def steps(self) -> Steps[None]:
        # One that has ended since, or a server that does not allow it, is an error reply.
        yield [("CLIENT", "KILL", "ID", number, "SKIPME", "yes") for number in self.ids]


class PurgeKeyspace(Operation[None]):
    """Drop whole scopes from a server process that was never seen before.

    The first process of the project to do so leaves a mark with the server's run id, so that the
    others do not drop what was stored since.

    :raises RefusedError: Redis did not do it, so it must not be read yet.
    """

    __slots__ = ("run_id", "scopes", "tag")
    long = True

    def __init__(
        self, context: OperationContext, scopes: Iterable[Keyspace], run_id: str, tag: bytes = b""
    ) -> None:
        self.context = context
        self.scopes = scopes
        self.run_id = run_id.encode()
        self.tag = tag

    def steps(self) -> Steps[None]:
        for keyspace in self.scopes:
            digest = hashlib.sha256(keyspace.expression).hexdigest()[:16]
            mark = f"cache_layer:clean:{digest}".encode() + self.tag
            (known,) = yield [("GET", mark)]
            if known != self.run_id:
                yield from drop_keyspace(keyspace)
                yield [("SET", mark, self.run_id)]


def drop_keyspace(keyspace: Keyspace) -> Steps[int]:
    """Delete every key of an alias."""
    return drop_matching(keyspace.pattern, lambda keys: [key for key in keys if keyspace.owns(key)])
