"""The memory side: a bounded LRU of the same bytes that Redis would hold."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class MemoryStore:
    """Encoded values by full key, with an expiry each.

    Whoever calls a method holds ``lock``: an operation of several steps is atomic that way.
    """

    def __init__(
        self, max_entries: Callable[[], int], clock: Callable[[], float] | None = None
    ) -> None:
        self.lock = threading.RLock()
        self._max_entries = max_entries
        # Looked up at each call: tests that freeze or move the clock replace it.
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
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return data

    def write(self, key: str, data: bytes, milliseconds: int | None) -> None:
        """Store bytes; ``None`` milliseconds never expire. Drops what was unused the longest."""
        deadline = None if milliseconds is None else self._clock() + milliseconds / 1000
        entries = self._entries
        if key in entries:
            entries.move_to_end(key)
        else:
            # A limit below one would make the store useless and the loop endless.
            limit = max(1, self._max_entries())
            while len(entries) >= limit:
                entries.popitem(last=False)
        entries[key] = (data, deadline)

    def replace(self, key: str, data: bytes) -> None:
        """Change the bytes of a key that ``read`` found, and keep its expiry."""
        self._entries[key] = (data, self._entries[key][1])

    def drop(self, key: str) -> None:
        """Forget a key, if there."""
        self._entries.pop(key, None)

    def expire(self, key: str, milliseconds: int | None) -> None:
        """Change the expiry of a key that ``read`` found."""
        deadline = None if milliseconds is None else self._clock() + milliseconds / 1000
        self._entries[key] = (self._entries[key][0], deadline)

    def rename(self, old: str, new: str) -> None:
        """Move a key that ``read`` found, with its expiry."""
        self._entries[new] = self._entries.pop(old)

    def remaining(self, key: str) -> int | None:
        """Return the milliseconds that a key found by ``read`` has left; None: never expires."""
        deadline = self._entries[key][1]
        return None if deadline is None else max(1, round((deadline - self._clock()) * 1000))

    def listed(self) -> list[str]:
        """Return every key, the expired ones included."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def after_fork(self) -> None:
        """Begin empty in a forked child: another thread may have held the lock."""
        self._entries.clear()
        self.lock = threading.RLock()
