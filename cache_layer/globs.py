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
    """Tell whether the whole text matches a pattern.

    The time is linear in the text for each part of the pattern between two stars.
    """
    return _compiled(pattern).match(text) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?s:{translate_glob(pattern)})\Z")


def literal_text(pattern: str) -> str:
    """Return the characters of a pattern that stand for themselves."""
    text = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "[":
            _, position = _class(pattern, position)
        elif character == "\\" and position < len(pattern):
            text += pattern[position]
            position += 1
        elif character not in "*?":
            text += character
    return text


def translate_glob(pattern: str) -> str:
    """Return the regular expression, with DOTALL, of the texts that match a pattern."""
    first, *rest = _between_stars(pattern)
    # The first place where a part fits leaves the most to the parts behind it, so none but the
    # last is tried anywhere else: trying all places in turn would take exponential time.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    last = f".*{rest[-1]}" if rest else ""
    return f"{first}{middle}{last}"


def _between_stars(pattern: str) -> list[str]:
    """Return the regular expressions of the parts before, between and behind the stars."""
    parts = [""]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            parts.append("")
        elif character == "?":
            parts[-1] += "."
        elif character == "[":
            part, position = _class(pattern, position)
            parts[-1] += part
        else:
            if character == "\\" and position < len(pattern):
                character = pattern[position]
                position += 1
            parts[-1] += re.escape(character)
    return parts


def _class(pattern: str, position: int) -> tuple[str, int]:
    """Return the regular expression of a character class and the position behind the class.

    ``position`` is the position behind the opening ``[``. As in Redis, a class without ``]`` ends
    with the pattern.
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
