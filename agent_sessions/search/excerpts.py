"""Finds pieces of a text around the words of a search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple
from unicodedata import category

from agent_sessions.search.terms import pattern_of
from cache_layer.codec import register

#: Most characters of an excerpt.
LENGTH = 200

_MAX_MATCHES = 100
_LONGEST_CLUSTER = 32
_LONGEST_CUT_WORD = 24
_JOINER = "\u200d"
_EXTENDERS = frozenset({_JOINER, *map(chr, range(0x1F3FB, 0x1F400))})


class Segment(NamedTuple):
    """A run of characters of an excerpt."""

    text: str
    is_match: bool


@register
@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of a message around words that were found: plain text, without any markup."""

    #: The number of the message in its session.
    sequence: int
    role: str
    #: At most ``LENGTH`` characters, cut between words where there are any.
    text: str
    #: Where the words stand in the text: start and end, in characters (code points).
    matches: tuple[tuple[int, int], ...]
    #: Whether the message has text before it.
    begins_inside: bool
    #: Whether the message has text behind it.
    ends_inside: bool

    @property
    def segments(self) -> list[Segment]:
        """The text in pieces, for a display that marks the matches; joined they are the text."""
        segments = []
        at = 0
        for start, end in self.matches:
            segments += [Segment(self.text[at:start], False), Segment(self.text[start:end], True)]
            at = end
        segments.append(Segment(self.text[at:], False))
        return [segment for segment in segments if segment.text]


class Piece(NamedTuple):
    """A part of a text and the matches in it."""

    start: int
    end: int
    matches: tuple[tuple[int, int], ...]


class Highlighter:
    """Finds the words of a term in texts."""

    def __init__(self, words: Sequence[str]) -> None:
        # The longest first: where one word begins with another, all of it is marked.
        ordered = sorted(words, key=len, reverse=True)
        groups = "|".join(f"({pattern_of(word)})" for word in ordered)
        self._pattern = re.compile(groups, re.IGNORECASE)

    def piece(self, text: str, length: int = LENGTH) -> Piece:
        """Return the part of the text that shows most of the words, whole words before parts."""
        found = list(islice(self._pattern.finditer(text), _MAX_MATCHES))
        if not found:
            return Piece(0, _cut(text, min(len(text), length), 0), ())
        best = max(range(len(found)), key=lambda first: _worth(text, found, first, length))
        start, end = _window(text, found[best].start(), found[best].end(), length)
        inside = []
        for match in found:
            if match.end() > start and match.start() < end:
                last = match.end()
                while last < end and _is_inside_cluster(text, last):
                    last += 1
                inside.append((max(match.start(), start) - start, min(last, end) - start))
        return Piece(start, end, tuple(inside))


def _worth(text: str, found: list[re.Match[str]], first: int, length: int) -> tuple[int, int, int]:
    shown = [match for match in found[first:] if match.end() <= found[first].start() + length]
    whole = {match.lastindex for match in shown if _is_whole(text, match)}
    return len(whole), len({match.lastindex for match in shown}), len(shown)


def _is_whole(text: str, match: re.Match[str]) -> bool:
    before, behind = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return not before.isalnum() and not behind.isalnum()


def _window(text: str, start: int, end: int, length: int) -> tuple[int, int]:
    """Return a part of the text with the match in it, a third of what is left before it."""
    spare = max(0, length - (end - start))
    left = max(0, min(start - spare // 3, len(text) - length))
    right = min(len(text), left + length)
    if left:
        left = _later(text, left, start)
    if right < len(text):
        right = _cut(text, right, min(max(end, left + 1), right))
    return left, right


def _later(text: str, at: int, latest: int) -> int:
    """Return where a word begins, at the position or soon behind it; at most ``latest``."""
    for place in range(at, min(at + _LONGEST_CUT_WORD, latest) + 1):
        if text[place - 1].isspace() and not text[place : place + 1].isspace():
            return place
    while at < latest and _is_inside_cluster(text, at):
        at += 1
    return at


def _cut(text: str, at: int, earliest: int) -> int:
    """Return where a word ends, at the position or soon before it; at least ``earliest``."""
    if at >= len(text):
        return at
    for place in range(at, max(at - _LONGEST_CUT_WORD, earliest) - 1, -1):
        if text[place].isspace() and not text[place - 1 : place].isspace():
            return place
    lowest = max(earliest, at - _LONGEST_CLUSTER)
    for place in range(at, lowest, -1):
        if not _is_inside_cluster(text, place):
            return place
    return at


def _is_inside_cluster(text: str, at: int) -> bool:
    """Tell whether a cut at the position would divide one visible character."""
    if not 0 < at < len(text):
        return False
    if category(text[at]).startswith("M") or text[at] in _EXTENDERS or text[at - 1] == _JOINER:
        return True
    flags = 0
    while flags < min(at, _LONGEST_CLUSTER) and _is_flag(text[at - 1 - flags]):
        flags += 1
    return _is_flag(text[at]) and flags % 2 == 1


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
