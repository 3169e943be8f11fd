"""Strict JSON of bounded size and depth, for requests and for files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import islice
from typing import Any, NoReturn

from django.utils.translation import gettext as _

from agent_sessions.message_format import MAX_DEPTH as MESSAGE_DEPTH
from agent_sessions.message_format import JsonObject

# A token is a string, the beginning of an object or array, or a comma between values.
_TOKEN = re.compile(rb'"[^"]*+"?|[\[{,]')

#: Levels of objects and arrays: a message as deep as allowed, in a batch.
MAX_DEPTH = MESSAGE_DEPTH + 3


class RefusedJSON(ValueError):  # noqa: N818
    """The JSON has more values or levels than allowed."""


def parse_json(data: bytes, max_items: int) -> Any:
    """Return the value of JSON text; refuse JSON that databases or other readers could not read.

    Refused are NaN and infinities (also `1e999`), too many values, nesting beyond MAX_DEPTH, text
    that is not UTF-8, and an object that names a key twice, because readers choose different
    values. A lone surrogate written as an escape is text like any other.

    Args:
        data: The text, in UTF-8.
        max_items: Largest number of strings, containers and values.

    Raises:
        RefusedJSON: There are too many values or levels.
        ValueError: The text is not JSON; also as JSONDecodeError and UnicodeDecodeError.
    """
    if _has_more_items(data, max_items):
        raise RefusedJSON(_("The JSON has too many values."))
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise RefusedJSON(_("The JSON is nested too deeply.")) from None
    # No more brackets than levels allowed: no need to walk.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise RefusedJSON(_("The JSON is nested too deeply."))
    return value


def _has_more_items(body: bytes, limit: int) -> bool:
    """Return whether the JSON has more strings, containers and values than ``limit``.

    A value of two bytes in the body takes tens of bytes in memory, so values are counted before
    they are made.
    """
    if sum(map(body.count, (b'"', b"[", b"{", b","))) <= limit:
        return False
    # Without escapes each quotation mark begins or ends a string.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return next(islice(_TOKEN.finditer(plain), limit, None), None) is not None


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _value in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(_("an object has the key %.100r twice") % twice)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(_("%s is not JSON") % name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(_("a number is out of range"))
    return number


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _depth in range(limit + 1):
        level = [
            child
            for container in level
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
