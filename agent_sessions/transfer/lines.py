"""Lines of a file of any length, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

DEFAULT_MAX_LINE_BYTES = 32 * 1024 * 1024
#: Bytes of a line for each string, container and value in its JSON: fewer than messages have.
BYTES_PER_ITEM = 8

DEFAULT_MAX_ITEMS = DEFAULT_MAX_LINE_BYTES // BYTES_PER_ITEM

#: The key of a session's metadata for the keys of a line that mean nothing here (`tools`, …).
EXTRA_KEY = "import_extra"

#: What some editors put before UTF-8.
BOM = b"\xef\xbb\xbf"

_STEP = 1024 * 1024
_BLANK_LINES = re.compile(rb"(?:[ \t\r]*+\n)*+")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, or one element of a JSON list."""

    #: Counted from 1, empty lines included, as editors count.
    number: int
    #: The bytes without the line end; None if there are more than allowed.
    data: bytes | None
    #: The bytes in the file, line end included.
    size: int
    #: Whether it is an element of a list.
    in_list: bool = False
    #: Why it cannot be read, if something is wrong around it.
    problem: str = ""

    @property
    def name(self) -> str:
        """The name of the line for people, such as "line 3"."""
        return f"conversation {self.number}" if self.in_list else f"line {self.number}"


def printable(text: str) -> str:
    """Return the text with escapes in place of control characters."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def read_lines(
    file: BinaryIO, max_bytes: int = DEFAULT_MAX_LINE_BYTES, first: int = 1
) -> Iterator[Line]:
    """Yield the lines of a file.

    One longer than ``max_bytes`` has its number and size only. Of blank lines that follow each
    other only the last one is given, with the size of all: there may be millions.

    Args:
        file: The file.
        max_bytes: Largest size of a line that is read.
        first: The number of the first line.
    """
    number = first - 1
    peek: Callable[[int], bytes] | None = getattr(file, "peek", None)
    while start := file.readline(max_bytes + 1):
        number += 1
        size = len(start)
        data: bytes | None = start
        if size > max_bytes and not start.endswith(b"\n"):
            data = None
            while (more := file.readline(_STEP)) and not more.endswith(b"\n"):
                size += len(more)
            size += len(more)
        elif number == first:
            data = start.removeprefix(BOM)
        if peek is not None and not start.strip():
            while blank := _end_of_blank_lines(peek(1)):
                number += file.read(blank).count(b"\n")
                size += blank
        yield Line(number, None if data is None else data.rstrip(b"\r\n"), size)


def _end_of_blank_lines(data: bytes) -> int:
    match = _BLANK_LINES.match(data)
    return match.end() if match else 0
