"""Stores encoded values in memory, the same bytes as in Redis, limited in number and size."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

#: Size of an entry beside its key and data, in bytes.
_OVERHEAD: Final = 300


class MemoryStore:
    """Encoded values by full key, each with an expiry. The least recently used entry goes first.

    Callers of every method hold ``lock``, so that an operation of several steps is atomic.

    Args:
        max_entries: Returns the largest number of entries.
        max_bytes: Returns the largest size in bytes of keys, data and the overhead of entries.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        max_entries: Callable[[], int],
        max_bytes: Callable[[], int],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        # Looked up at each call, because tests that move the clock replace the function.
        self._clock = clock or (lambda: time.monotonic())
        self._entries: OrderedDict[str, tuple[bytes, float | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key and mark it as used, or None when it is missing or expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        data, deadline = entry
        if deadline is not None and deadline <= self._clock():
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return data

    def write(self, key: str, data: bytes, milliseconds: int | None) -> None:
        """Store bytes, unless they are too large; with ``milliseconds`` None they never expire."""
        deadline = None if milliseconds is None else self._clock() + milliseconds / 1000
        self._put(key, data, deadline)

    def replace(self, key: str, data: bytes) -> None:
        """Change the bytes of a key that ``read`` found, and keep its expiry."""
        self._put(key, data, self._entries[key][1])

    def drop(self, key: str) -> None:
        """Remove a key, if it exists."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= _size(key, entry[0])

    def expire(self, key: str, milliseconds: int | None) -> None:
        """Change the expiry of a key that ``read`` found."""
        deadline = None if milliseconds is None else self._clock() + milliseconds / 1000
        self._entries[key] = (self._entries[key][0], deadline)

    def rename(self, old: str, new: str) -> None:
        """Move a key that ``read`` found, with its expiry."""
        data, deadline = self._entries[old]
        self.drop(old)
        self._put(new, data, deadline)

    def remaining(self, key: str) -> int | None:
        """Return the milliseconds left of a key that ``read`` found; None if it never expires."""
        deadline = self._entries[key][1]
        return None if deadline is None else max(1, round((deadline - self._clock()) * 1000))

    def listed(self) -> list[str]:
        """Return every key, the expired ones included."""
        return list(self._entries)

    def clear(self) -> None:
        """Remove all keys."""
        self._entries.clear()
        self.bytes = 0

    def after_fork(self) -> None:
        """Begin empty in a forked child: another thread may have held the lock."""
        self.clear()
        self.lock = threading.RLock()

    def _put(self, key: str, data: bytes, deadline: float | None) -> None:
        self.drop(key)
        size = _size(key, data)
        # A limit of no entries would make the store useless and the loop endless.
        max_entries, max_bytes = max(1, self._max_entries()), self._max_bytes()
        if size > max_bytes:
            return
        entries = self._entries
        while len(entries) >= max_entries or self.bytes + size > max_bytes:
            oldest, (dropped, _deadline) = entries.popitem(last=False)
            self.bytes -= _size(oldest, dropped)
        entries[key] = (data, deadline)
        self.bytes += size


def _size(key: str, data: bytes) -> int:
    return len(key) + len(data) + _OVERHEAD
