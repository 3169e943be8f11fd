"""Selects the keys that match any of many patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cache_layer.backends.operations.base import raw
from cache_layer.globs import escape_glob, translate_glob
from cache_layer.keyspace import literal_start


class KeyPatterns:
    """Patterns of full keys, ordered by the text that their matches begin with.

    A key is looked up by its beginnings, one of each length, so the time does not depend on how
    many patterns there are. An expression is compiled when a key first needs it.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        #: By the length of the beginning, then by the beginning: the patterns.
        self._groups: dict[int, dict[bytes, list[str]]] = {}
        self._compiled: dict[bytes, re.Pattern[str] | None] = {}
        starts = []
        for pattern in patterns:
            text = literal_start(pattern)
            start = raw(text)
            starts.append(text)
            self._groups.setdefault(len(start), {}).setdefault(start, []).append(pattern)
        #: One pattern that finds the matches of all, and others too.
        self.common = f"{escape_glob(_common_start(starts))}*"

    def matching(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys that match any of the patterns."""
        keys = list(keys)
        found: dict[bytes, None] = {}
        for length, groups in self._groups.items():
            for key in [key for key in keys if key[:length] in groups]:
                if self._matches(key, key[:length], groups):
                    found[key] = None
        return list(found)

    def _matches(self, key: bytes, start: bytes, groups: dict[bytes, list[str]]) -> bool:
        if start not in self._compiled:
            self._compiled[start] = _expression(start, groups[start])
        expression = self._compiled[start]
        return expression is None or expression.fullmatch(key.decode("latin-1")) is not None


def _expression(start: bytes, patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return the expression of the keys that match; None for all that begin as they do."""
    texts = [raw(pattern).decode("latin-1") for pattern in patterns]
    if f"{escape_glob(start.decode('latin-1'))}*" in texts:
        return None
    return re.compile("|".join(map(translate_glob, texts)), re.DOTALL)


def _common_start(texts: Iterable[str]) -> str:
    texts = sorted(texts)
    first, last = texts[0], texts[-1]
    differing = (
        number for number, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]
    )
    return first[: next(differing, len(first))]
