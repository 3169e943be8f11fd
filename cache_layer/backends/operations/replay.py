# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""What brings Redis up to date after an outage."""

from __future__ import annotations

from cache_layer.backends import scripts
from cache_layer.backends.context import Context
from cache_layer.backends.operations.base import Command, Operation, Steps, chunks, raw
from cache_layer.backends.operations.scans import RefusedError, drop_matching
from cache_layer.journal import Entries

#: Commands in one round trip.
_PIPELINE = 10


class Replay(Operation[None]):
    """Delete everything that the journal remembered.

    :raises RefusedError: Redis did not do it, so it must not be read yet.
    """

    __slots__ = ("entries",)

    def __init__(self, context: Context, entries: Entries) -> None:
        self.context = context
        self.entries = entries

    def steps(self) -> Steps[None]:
        deletions: list[Command] = [
            scripts.DROP([raw(key) for key in chunk]) for chunk in chunks(list(self.entries.keys))
        ]
        for start in range(0, len(deletions), _PIPELINE):
            for reply in (yield deletions[start : start + _PIPELINE]):
                if isinstance(reply, Exception):
                    raise RefusedError from reply
        for pattern in self.entries.patterns:
            yield from drop_matching(pattern)
        for scope in self.entries.scopes:
            yield from drop_matching(
                scope.pattern, lambda keys, owns=scope.owns: [key for key in keys if owns(key)]
            )
