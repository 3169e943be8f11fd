"""The elements of a JSON list of any length, in bounded memory."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import BinaryIO

from django.utils.translation import gettext as _

from agent_sessions.transfer.lines import BOM, Line

_CHUNK_BYTES = 256 * 1024

# Whole strings are skipped at once: only brackets, and commas of the list itself, are looked at.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|%s)*+' % _STRING, re.DOTALL)
_TO_COMMA = re.compile(rb'(?:[^"\[\]{},]++|%s)*+' % _STRING, re.DOTALL)
_TO_OPEN_STRING = re.compile(rb'(?:[^"]++|%s)*+' % _STRING, re.DOTALL)
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


# A chunk with a bracket among so many bytes is looked at as a whole.
_DENSE = 32
_BRACKETS = (b"[", b"]", b"{", b"}")
_STEPS = bytes(1 if sign in b"[{" else 255 if sign in b"]}" else 0 for sign in range(256))


class _Depths:
    """The depth at each place of a chunk with many brackets, up to a string that does not end."""

    def __init__(self, chunk: bytes, place: int) -> None:
        match = _TO_OPEN_STRING.match(chunk, place)
        self._end = match.end() if match else place
        self._start = place
        text = _WHOLE_STRING.sub(lambda found: bytes(len(found[0])), chunk[place : self._end])
        # A step of one for each bracket; the first sum stands before the first byte.
        steps = array("b", text.translate(_STEPS))
        self._depths = list(accumulate(steps, initial=0))

    def up_to(self, depth: int, place: int) -> tuple[int, int]:
        """Return the place behind the bracket that leads back to depth 1, or the end; its depth."""
        before = self._depths[place - self._start]
        try:
            found = self._depths.index(before + 1 - depth, place - self._start)
        except ValueError:
            return self._end, depth + self._depths[-1] - before
        return self._start + found, 1


class _Element:
    """The bytes of the element that is being read, as long as they are not too many."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts.clear()

    @property
    def is_empty(self) -> bool:
        return self.size <= self._max_bytes and not b"".join(self._parts).strip()

    def take(self, number: int, problem: str = "") -> Line:
        data = b"".join(self._parts).strip()
        line = Line(
            number,
            data if self.size <= self._max_bytes else None,
            self.size,
            in_list=True,
            problem=problem,
        )
        self._parts, self.size = [], 0
        return line


def read_elements(file: BinaryIO, max_bytes: int, first: int = 1) -> Iterator[Line]:
    """Yield the elements of the JSON list in a file.

    One that has more than ``max_bytes`` has its number and size only. Text that is not JSON is not
    noticed here: an element ends where its brackets do.

    Args:
        file: The file, at the beginning of the list.
        max_bytes: Largest size of an element that is read.
        first: The number of the first element.
    """
    number = first
    element = _Element(max_bytes)
    depth = 0
    in_string = escaped = False
    chunk = file.read(_CHUNK_BYTES).removeprefix(BOM).lstrip()
    while chunk:
        start = place = 0
        is_dense = sum(map(chunk.count, _BRACKETS)) > len(chunk) // _DENSE
        depths: _Depths | None = None
        while place < len(chunk):
            if in_string:
                place += escaped
                match = _TO_QUOTE.match(chunk, place)
                place = match.end() if match else place
                escaped = chunk[place : place + 1] == b"\\"
                in_string = chunk[place : place + 1] != b'"'
                place += 1
                continue
            if is_dense and depth > 1:
                depths = depths or _Depths(chunk, place)
                place, depth = depths.up_to(depth, place)
                if depth > 1 and place < len(chunk):
                    # The string that goes on in the next chunk.
                    place, in_string = place + 1, True
                continue
            match = (_TO_COMMA if depth == 1 else _TO_BRACKET).match(chunk, place)
            place = match.end() if match else place
            sign = chunk[place : place + 1]
            place += 1
            if sign == b'"':
                in_string = True
            elif sign in (b"[", b"{"):
                depth += 1
                if depth == 1:
                    start = place
            elif sign in (b"]", b"}"):
                depth -= 1
            if depth == 0 or (depth == 1 and sign == b","):
                element.add(chunk[start : place - 1])
                is_empty = depth == 1 and element.is_empty
                yield element.take(number, _("Nothing is before this comma.") if is_empty else "")
                number += 1
                start = place
            if depth == 0:
                rest = chunk[place:].strip()
                while not rest and (more := file.read(_CHUNK_BYTES)):
                    rest = more.strip()
                yield from _rest(rest, number)
                return
        # An escape at the end goes on in the next chunk.
        element.add(chunk[start:])
        chunk = file.read(_CHUNK_BYTES)
        place = 0
    yield element.take(number, _("The file ends in the middle of the list."))


def _rest(rest: bytes, number: int) -> Iterator[Line]:
    if rest:
        problem = _("What follows the end of the list is not read.")
        yield Line(number, None, len(rest), in_list=True, problem=problem)
