"""The entries of the near cache: copies read from Redis, dropped when their key changes.

A reader calls ``begin_read`` before it asks Redis and ``commit_read`` with the reply. Every report
that a key changed drops its entry and cancels the reads of it that are pending, and a reply whose
read was cancelled is not kept. So a value read before a change is never kept after the report of
that change, in whatever order and over whatever connections reply and report arrive.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from cache_layer.aliases import Value
from cache_layer.globs import glob_match
from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace

#: Size of an entry beside its key and data, in bytes.
_OVERHEAD: Final = 400
#: Largest number of names under which the decoded value of one entry is kept.
_MAX_NAMES: Final = 16

_monotonic = time.monotonic


@dataclasses.dataclass(frozen=True)
class NearOptions:
    """``OPTIONS["NEAR_CACHE"]`` of a ``CACHES`` entry.

    Without the option, only functions that ask for it use the near cache, within these limits.
    """

    max_entries: int = 10_000
    #: Largest size in bytes of keys, encoded values and the overhead of entries.
    max_bytes: int = 32 * 1024 * 1024
    #: Namespaces whose reads are kept: None for all, ``""`` for reads without a namespace. The
    #: option ``near`` of ``cached`` overrides it.
    namespaces: frozenset[str] | None = None

    @classmethod
    def of(cls, option: object) -> NearOptions | None:
        """Return the options in the setting; None if it turns the cache off.

        Raises:
            ImproperlyConfigured: The setting has another form.
        """
        if problem := cls.problem(option):
            raise ImproperlyConfigured(f"NEAR_CACHE in OPTIONS is {option!r}: {problem}.")
        if option is False:
            return None
        if option is None:
            return cls(namespaces=frozenset())
        given: dict[str, Any] = dict(option) if isinstance(option, Mapping) else {}
        if (names := given.get("namespaces")) is not None:
            given["namespaces"] = frozenset(names)
        return cls(**given)

    @classmethod
    def problem(cls, option: object) -> str:
        """Return the mistake in the setting, or an empty text."""
        if option is None or isinstance(option, bool):
            return ""
        if not isinstance(option, Mapping):
            return "it must be True, False or a dictionary"
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in option.items():
            if name not in known:
                return f"it knows {', '.join(known)}, not {name!r}"
            if name == "namespaces":
                if value is not None and not _are_names(value):
                    return "namespaces must be a list of strings"
            elif type(value) is not int or value < 1:
                return f"{name} must be a whole number above 0"
        return ""


class Entry:
    """The bytes of one key. ``deadline`` is the monotonic time at which the key expires."""

    __slots__ = ("alive", "data", "deadline", "names", "size", "used")

    def __init__(self, data: bytes, deadline: float, size: int) -> None:
        self.data = data
        self.deadline = deadline
        self.size = size
        #: False from the moment the entry is dropped.
        self.alive = True
        #: Whether it answered a read since eviction last looked at it.
        self.used = False
        #: The places of its decoded value: a dictionary and the key in it.
        self.names: list[tuple[dict[Hashable, Value], Hashable]] = []


class PendingRead:
    """A read that Redis has not answered yet."""

    __slots__ = ("began", "generation", "tokens")

    def __init__(self, generation: int, began: float, tokens: list[object]) -> None:
        self.generation = generation
        self.began = began
        self.tokens = tokens


class NearCache:
    """The entries of one store in one process, shared by its threads and event loops.

    It is off, and empty, until ``turn_on()``. When there are too many entries or bytes, the entry
    that was not used for the longest time goes first.
    """

    def __init__(self, options: NearOptions) -> None:
        self.options = options
        self.on = False
        #: Until when entries may be used without further reports, on the monotonic clock.
        self.until = 0.0
        self.bytes = 0
        self._lock = threading.RLock()
        self._generation = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._pending: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of each key; None for keys without an entry."""
        now = _monotonic()
        if now >= self.until:
            return [None] * len(keys)
        held: list[bytes | None] = []
        for entry in map(self._entries.get, keys):
            if entry is None or now >= entry.deadline:
                held.append(None)
            else:
                entry.used = True
                held.append(entry.data)
        return held

    def entries(self, keys: Sequence[str]) -> list[Entry] | None:
        """Return the entries of the keys; None if one of them is missing."""
        found = [entry for key in keys if (entry := self._entries.get(key)) is not None]
        return found if len(found) == len(keys) else None

    def begin_read(self, keys: Sequence[str]) -> PendingRead | None:
        """Announce a read of the keys from Redis; return None while the cache is off."""
        generation = self._generation
        if not self.on:
            return None
        pending = self._pending
        # The first reader announced the key for all: cancelling its read cancels the others.
        tokens = [pending.setdefault(key, object()) for key in keys]
        return PendingRead(generation, _monotonic(), tokens)

    def commit_read(
        self,
        read: PendingRead,
        keys: Sequence[str],
        held: Sequence[bytes | None],
        left: Sequence[int],
    ) -> None:
        """Keep the replies to a read, unless it was cancelled meanwhile.

        Args:
            read: The result of ``begin_read`` for the keys.
            keys: The keys, as they were given to ``begin_read``.
            held: The bytes of each key; None is not kept.
            left: The milliseconds that each key has left; -1 if it never expires.
        """
        with self._lock:
            if not self.on or read.generation != self._generation:
                return
            pending = self._pending
            for key, token, data, milliseconds in zip(keys, read.tokens, held, left, strict=True):
                if data is None:
                    continue
                if pending.get(key) is not token:
                    entry = self._entries.get(key)
                    if entry is not None and entry.data != data:
                        # Two replies, of before and after a change that was not reported yet: who
                        # got the later one must not find the earlier one here.
                        self.drop((key,))
                    continue
                del pending[key]
                if milliseconds == -1:
                    self._add(key, data, math.inf)
                elif milliseconds > 0:
                    self._add(key, data, read.began + milliseconds / 1000)

    def cancel_read(self, read: PendingRead, keys: Sequence[str]) -> None:
        """End a read that was not committed."""
        pending = self._pending
        for key, token in zip(keys, read.tokens, strict=True):
            if pending.get(key) is token:
                with self._lock:
                    if pending.get(key) is token:
                        del pending[key]

    def attach(
        self, entry: Entry, values: dict[Hashable, Value], name: Hashable, value: object, size: int
    ) -> None:
        """Put a value made from an entry into a dictionary while the entry exists.

        Args:
            entry: The entry; nothing happens if it was dropped before.
            values: The dictionary.
            name: The key in the dictionary.
            value: The value, which has the entry as its attribute ``entry``.
            size: The bytes that it takes.
        """
        with self._lock:
            if not entry.alive:
                return
            known = values.get(name)
            if known is None or known.entry is not entry:
                if len(entry.names) == _MAX_NAMES:
                    return
                entry.names.append((values, name))
                entry.size += size
                self.bytes += size
            values[name] = value
            self._make_room()

    def drop(self, keys: Iterable[str]) -> None:
        """Drop the entries of keys that changed, and cancel the reads of them."""
        with self._lock:
            for key in keys:
                self._pending.pop(key, None)
                entry = self._entries.pop(key, None)
                if entry is not None:
                    self._end(entry)

    def drop_matching(self, pattern: str) -> None:
        """Do the same for the keys that match a pattern of full keys."""
        with self._lock:
            every = {**self._pending, **self._entries}
            self.drop([key for key in every if glob_match(pattern, key)])

    def drop_all(self) -> None:
        """Do the same for all keys."""
        with self._lock:
            self._pending.clear()
            for entry in self._entries.values():
                self._end(entry)
            self._entries.clear()
            self.bytes = 0

    def turn_on(self, until: float, condition: Callable[[], bool]) -> None:
        """Turn the cache on, empty, if the condition holds. Every change is reported from now on.

        Args:
            until: The monotonic time until which entries may be used without further reports.
            condition: Called under the lock.
        """
        with self._lock:
            self.drop_all()
            self._generation += 1
            self.until = until
            self.on = condition()

    def turn_off(self) -> None:
        """Turn the cache off and drop all entries. Changes may go unreported from now on."""
        with self._lock:
            self.on = False
            self.until = 0.0
            self.drop_all()

    def after_fork(self) -> None:
        """Begin, off, in a forked child: another thread may have held the lock."""
        self._lock = threading.RLock()
        self.turn_off()

    def _add(self, key: str, data: bytes, deadline: float) -> None:
        size = len(data) + len(key) + _OVERHEAD
        self.drop((key,))
        if size > self.options.max_bytes:
            return
        self._entries[key] = Entry(data, deadline, size)
        self.bytes += size
        self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self.options.max_bytes or len(self) > self.options.max_entries:
            oldest, entry = self._entries.popitem(last=False)
            if entry.used:
                # A second chance, at the end of the queue.
                entry.used = False
                self._entries[oldest] = entry
            else:
                self._end(entry)

    def _end(self, entry: Entry) -> None:
        entry.alive = False
        self.bytes -= entry.size
        for values, name in entry.names:
            values.pop(name, None)


class NearJournal(Journal):
    """A journal that drops its keys from the near cache at once, and remembers nothing."""

    def __init__(self, near: NearCache) -> None:
        self._near = near

    def add_key(self, key: str, keyspace: Keyspace | None) -> None:
        """See ``Journal.add_key``."""
        self._near.drop((key,))

    def add_value(self, key: str, keyspace: Keyspace | None) -> None:
        """See ``Journal.add_value``."""
        self._near.drop((key,))

    def add_pattern(self, pattern: str, keyspace: Keyspace | None) -> None:
        """See ``Journal.add_pattern``."""
        self._near.drop_matching(pattern)

    def add_keyspace(self, keyspace: Keyspace) -> None:
        """See ``Journal.add_keyspace``."""
        self._near.drop_all()


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in value
    )
