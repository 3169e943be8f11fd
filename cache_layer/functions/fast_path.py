"""Finds near-cache hits of one decorated function by its arguments.

Making the key of a call takes longer than all other steps of a hit in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Final
from uuid import UUID

from cache_layer.aliases import Value
from cache_layer.backends import NOT_FOUND, DecodedValues, ReadResult, ResilientCache
from cache_layer.functions.arguments import Args, Kwargs

#: Values of these types are equal exactly when their keys are equal. Calls with other arguments
#: make their key.
_TELLING: Final = frozenset({str, int, bool, bytes, type(None), UUID})

#: Largest size of remembered arguments, in bytes. Calls with larger arguments make their key.
_LONGEST: Final = 1000


class ArgumentIndex:
    """The near hits of one function by its arguments; shared by threads and event loops."""

    def __init__(self) -> None:
        #: None where results are not kept in this process.
        self.values: DecodedValues | None = None
        self._store: object = None

    def get(self, args: Args, kwargs: Kwargs) -> Value:
        """Return the result of a call, or ``NOT_FOUND``."""
        values = self.values
        if values is None or (name := _name(args, kwargs)) is None:
            return NOT_FOUND
        return values.get(name)

    def remember(
        self, backend: ResilientCache, args: Args, kwargs: Kwargs, read: ReadResult
    ) -> None:
        """Remember the result of a read for calls with the same arguments, while it is near."""
        if not backend.single_prefix:
            return
        store = backend.store
        if store is not self._store:
            self._store = store
            self.values = store.decoded_values(read.context)
        values = self.values
        if values is None or (name := _name(args, kwargs)) is None:
            return
        # The size of near copies is limited; their names should not exceed that limit.
        if sum(map(sys.getsizeof, (*args, *kwargs.values()))) <= _LONGEST:
            values.learn(name, read)


def _name(args: Args, kwargs: Kwargs) -> Hashable:
    types: tuple[type, ...] = tuple(map(type, args))
    if kwargs:
        types += tuple(map(type, kwargs.values()))
        if _TELLING.issuperset(types):
            return types, args, tuple(kwargs.items())
        return None
    return (types, args) if _TELLING.issuperset(types) else None
