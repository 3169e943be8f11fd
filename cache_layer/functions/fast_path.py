"""Results of one decorated function in the near cache, found by the arguments themselves.

Making the key of a call takes longer than everything else about a hit in this process.
"""

from __future__ import annotations

import sys
from typing import Any, Final
from uuid import UUID

from cache_layer.backends import ResilientCache
from cache_layer.backends.near.decoded import NOT_FOUND, DecodedValues
from cache_layer.backends.operations.base import Read
from cache_layer.backends.state import MemoryState

#: Of these types, values are equal exactly when their keys are; other arguments take the long way.
_TELLING: Final = frozenset({str, int, bool, bytes, type(None), UUID})


#: Bytes of arguments that are remembered; with larger ones a call takes the long way too.
_LONGEST: Final = 1000


class ArgumentIndex:
    """Of one function; shared by threads and event loops."""

    def __init__(self) -> None:
        self._answers: DecodedValues | None = None
        self._state: MemoryState | None = None

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call, or ``NOT_FOUND``."""
        decoded = self._answers
        if decoded is None:
            return NOT_FOUND
        name = _name(args, kwargs)
        return NOT_FOUND if name is None else decoded.get(name)

    def learn(
        self,
        backend: ResilientCache,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        read: Read[Any],
    ) -> None:
        """Take note of the read that a call took."""
        if not backend.single_prefix:
            return
        state = backend.state
        if state is not self._state:
            self._state = state
            self._answers = state.decoded(read.context)
        decoded = self._answers
        if decoded is None or (name := _name(args, kwargs)) is None:
            return
        # What near copies may take is limited; the names they are found by should not exceed it.
        if sum(map(sys.getsizeof, (*args, *kwargs.values()))) <= _LONGEST:
            decoded.learn(name, read)


def _name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    types: tuple[type, ...] = tuple(map(type, args))
    if kwargs:
        types += tuple(map(type, kwargs.values()))
        if _TELLING.issuperset(types):
            return types, args, tuple(kwargs.items())
        return None
    return (types, args) if _TELLING.issuperset(types) else None
