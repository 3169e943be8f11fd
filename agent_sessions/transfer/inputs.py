"""Files to import: JSON Lines or a JSON list, as they are, as gzip or in a zip archive."""

from __future__ import annotations

import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, TypeVar, cast

from django.utils.translation import gettext as _

from agent_sessions.transfer.arrays import read_elements
from agent_sessions.transfer.lines import BOM, Line, printable, read_lines

# Conversations shrink to a tenth or so. What grows by more than this is made to fill memory.
_LARGEST_RATIO = 100
_ALWAYS_ALLOWED = 64 * 1024 * 1024
# The largest single read of a zip archive is that of its table of contents.
_LARGEST_READ = 16 * 1024 * 1024
_MOST_MEMBERS = 1_000
_BUFFER_BYTES = 256 * 1024
_CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
_JSON = (".json", ".jsonl", ".ndjson")

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

R = TypeVar("R")


class UnreadableInput(Exception):  # noqa: N818
    """The input cannot be read, or not to its end; the text says why."""


class Input:
    """A file of conversations. Its first bytes tell its format, not its name.

    Of a zip archive the files `conversations.json` are read, or the only JSON file. Nothing is
    unpacked to disk, and what decompresses to more than a hundred times its size is refused.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._raw = _Guarded(file)
        self._file = _SmallReads(self._raw, _BUFFER_BYTES)
        head = _attempt(lambda: self._file.peek(4))
        self._is_gzip = head.startswith(b"\x1f\x8b")
        self._is_zip = head.startswith((b"PK\x03\x04", b"PK\x05\x06"))

    @property
    def size(self) -> int | None:
        """The bytes that are to be read, where that is known."""
        if self._is_gzip or self._is_zip:
            return None
        try:
            return os.fstat(self._file.fileno()).st_size or None
        except OSError:
            return None

    def lines(self, max_bytes: int) -> Iterator[Line]:
        """Yield the lines, or the elements of the list. One that is too long has no data.

        Raises:
            UnreadableInput: The input cannot be read to its end.
        """
        last = 0
        for file in self._files():
            starts = file.peek(_BUFFER_BYTES)[:_BUFFER_BYTES].removeprefix(BOM).lstrip()
            read = read_elements if starts.startswith(b"[") else read_lines
            for line in read(file, max_bytes, last + 1):
                last = line.number
                yield line

    def _files(self) -> Iterator[io.BufferedReader]:
        if self._is_zip:
            yield from self._members()
        elif self._is_gzip:
            unpacked = gzip.GzipFile(fileobj=self._file, mode="rb")
            raw = _Guarded(cast("IO[bytes]", unpacked), lambda: self._raw.given)
            yield io.BufferedReader(raw, _BUFFER_BYTES)
        else:
            yield self._file

    def _members(self) -> Iterator[io.BufferedReader]:
        if not self._file.seekable():
            raise UnreadableInput(_("A zip archive is read from a file, not from a pipe."))
        archive = _attempt(lambda: zipfile.ZipFile(self._file))
        members = [one for one in archive.infolist() if not one.is_dir()]
        found = [one for one in members if _CONVERSATIONS.fullmatch(one.filename)]
        if not found:
            found = [one for one in members if one.filename.endswith(_JSON)]
            if len(found) != 1:
                raise UnreadableInput(_("The archive has no conversations.json."))
        if len(found) > _MOST_MEMBERS:
            raise UnreadableInput(_("The archive has more than %d files.") % _MOST_MEMBERS)
        for one in sorted(found, key=lambda one: one.filename):
            yield io.BufferedReader(self._member(archive, one), _BUFFER_BYTES)

    def _member(self, archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> _Guarded:
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableInput(_("The archive has a compression that is not read."))
        return _Guarded(_attempt(lambda: archive.open(one)), lambda: one.compress_size)


class _SmallReads(io.BufferedReader):
    """A buffered file for zipfile, which reads a table of contents of any size at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_READ:
            raise UnreadableInput(_("The archive's table of contents is too large."))
        return super().read(_LARGEST_READ if size is None or size < 0 else size)


class _Guarded(io.RawIOBase):
    """A file whose errors are UnreadableInput, and that does not grow without limit."""

    def __init__(self, file: IO[bytes], packed: Callable[[], int] | None = None) -> None:
        self._source = file
        self._packed = packed
        #: Bytes that were read.
        self.given = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._packed is None and self._source.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def fileno(self) -> int:
        return self._source.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = _attempt(lambda: self._source.read(len(view)))
        view[: len(data)] = data
        self.given += len(data)
        if self._packed is not None:
            allowed = _ALWAYS_ALLOWED + self._packed() * _LARGEST_RATIO
            if self.given > allowed:
                raise UnreadableInput(
                    _("It decompresses to more than %d times its size.") % _LARGEST_RATIO
                )
        return len(data)


def _attempt(call: Callable[[], R]) -> R:
    try:
        return call()
    except (
        *(OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile),
        *(ValueError, OverflowError),
    ) as error:
        # A RuntimeError is an archive with a password; a ValueError has a name that is not UTF-8,
        # or a place before the file.
        reason = getattr(error, "strerror", None) or printable(str(error))
        raise UnreadableInput(_("It cannot be read: %s.") % reason.rstrip(".")) from error
