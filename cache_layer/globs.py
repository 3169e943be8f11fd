r"""Glob patterns as Redis reads them: ``*``, ``?``, ``[abc]``, ``[^a]``, ``[a-z]``, ``\\x``."""

from __future__ import annotations

import functools
import re
from typing import Final

_SPECIAL: Final = re.compile(r"([*?\[\]\\^])")


def escape_glob(text: str) -> str:
    """Return a pattern that matches this text and nothing else."""
    return _SPECIAL.sub(r"\\\1", text)


def glob_match(pattern: str, text: str) -> bool:
    """Tell whether the whole text matches a pattern."""
    return _compiled(pattern).match(text) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?s:{translate_glob(pattern)})\Z")


def translate_glob(pattern: str) -> str:
    """Return the regular expression, with DOTALL, of the texts that match a pattern."""
    parts = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == "[":
            part, position = _class(pattern, position)
            parts.append(part)
        else:
            if character == "\\" and position < len(pattern):
                character = pattern[position]
                position += 1
            parts.append(re.escape(character))
    return re.sub(r"(?:\.\*)+", ".*", "".join(parts))


def _class(pattern: str, position: int) -> tuple[str, int]:
    """Translate a class from behind its ``[``; returns it and the position behind its end.

    As in Redis, a class that is not closed ends with the pattern.
    """
    negated = pattern.startswith("^", position)
    position += negated
    members = []
    while position < len(pattern) and pattern[position] != "]":
        if pattern[position] == "\\" and position + 1 < len(pattern):
            members.append(re.escape(pattern[position + 1]))
            position += 2
        elif pattern.startswith("-", position + 1) and position + 2 < len(pattern):
            first, last = sorted((pattern[position], pattern[position + 2]))
            members.append(f"{re.escape(first)}-{re.escape(last)}")
            position += 3
        else:
            members.append(re.escape(pattern[position]))
            position += 1
    position += 1
    if members:
        return f"[{'^' if negated else ''}{''.join(members)}]", position
    # An empty class matches nothing, a negated empty class any character.
    return ("." if negated else "(?!)"), position
