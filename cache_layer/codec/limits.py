"""Counts the values of a message before it is written, and while it is read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from cache_layer.aliases import Value
from cache_layer.exceptions import CodecError

#: Largest number of values in one message. Each takes at least one byte, and up to 70 in memory.
MAX_ITEMS = 4 << 20
#: Largest number of lists and dicts inside each other; msgpack has the same limit.
_MAX_DEPTH: Final = 511
_CONTAINERS: Final = frozenset({list, dict})


class TooDeepError(Exception):
    """A value contains itself, or too many containers inside each other."""


def items_in(value: object, most: int) -> int:
    """Count the lists and dicts inside a value, and the values in each of them.

    The time is linear in ``most``, however large the value is.

    Raises:
        ValueError: There are more than ``most``.
        TooDeepError: A container contains itself, or is nested too deeply.
    """
    count = 0
    level: list[Any] = [value]
    for _depth in range(_MAX_DEPTH + 1):
        if _CONTAINERS.isdisjoint(map(type, level)):
            return count
        lists = [each for each in level if type(each) is list]
        dicts = [each for each in level if type(each) is dict]
        count += len(lists) + sum(map(len, lists)) + len(dicts) + sum(map(len, dicts))
        if count > most:
            raise ValueError(f"it contains more than {MAX_ITEMS:,} values")
        level = list(chain.from_iterable(chain(lists, map(dict.values, dicts))))
    raise TooDeepError


def counted(size: int) -> Mapping[str, Any]:
    """Return the hooks that count the values of a message that may have too many.

    Args:
        size: The bytes of the message.
    """
    if size <= MAX_ITEMS:
        return {}
    left = MAX_ITEMS

    def count(items: Value) -> Value:
        nonlocal left
        left -= len(items) + 1
        if left < 0:
            raise CodecError(f"the value contains more than {MAX_ITEMS:,} others")
        return items

    most = {"max_array_len": MAX_ITEMS, "max_map_len": MAX_ITEMS}
    return {"list_hook": count, "object_hook": count, **most}
