# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Several operations done in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import (
    Operation,
    OperationContext,
    Refusal,
    Single,
    Steps,
    chunks,
    raws,
)
from cache_layer.backends.operations.results import ReadResult
from cache_layer.journal import Journal


class Together(Operation[list[Any]]):
    """Do operations of one command each; returns the result of each.

    Args:
        context: See ``OperationContext``.
        operations: Operations that handle a refusal.
    """

    __slots__ = ("operations",)
    refusal = Refusal.PASSED
    long = True

    def __init__(self, context: OperationContext, operations: Sequence[Single[Any]]) -> None:
        self.context = context
        self.operations = operations

    def steps(self) -> Steps[list[Any]]:
        results = []
        for chunk in chunks(self.operations):
            replies = yield [operation.command() for operation in chunk]
            results += [
                operation.rejected() if isinstance(reply, Exception) else operation.parse(reply)
                for operation, reply in zip(chunk, replies, strict=True)
            ]
        return results

    def in_memory(self, store: MemoryStore) -> list[Any]:
        return [operation.in_memory(store) for operation in self.operations]

    def remember(self, journal: Journal) -> None:
        for operation in self.operations:
            operation.remember(journal)

    def overwritten(self) -> tuple[str, ...]:
        return tuple(key for operation in self.operations for key in operation.overwritten())


class ReadResults(Operation[list[Any]]):
    """Read results with one MGET; returns for each what ``ReadResult`` returns.

    Args:
        context: See ``OperationContext``.
        reads: The single reads.
    """

    __slots__ = ("reads",)
    refusal = Refusal.OUTAGE
    writes = False
    long = True

    def __init__(self, context: OperationContext, reads: Sequence[ReadResult]) -> None:
        self.context = context
        self.reads = reads

    def steps(self) -> Steps[list[Any]]:
        # Most of them have their tags in common, which come last: a result is never older than
        # the tags that it is compared with.
        keys = [read.key for read in self.reads]
        names = list(dict.fromkeys([*keys, *(tag for r in self.reads for tag in r.result.tags)]))
        pieces = list(chunks(names))
        replies = yield [("MGET", *raws(piece)) for piece in pieces]
        held: dict[str, bytes | None] = {}
        for piece, reply in zip(pieces, replies, strict=True):
            held.update(zip(piece, reply, strict=True))
        return [read.parse([held[name] for name in read.reads]) for read in self.reads]

    def in_memory(self, store: MemoryStore) -> list[Any]:
        return [read.in_memory(store) for read in self.reads]
