"""The journal of an outage: the keys to remove from Redis before anyone reads from it again.

It does no I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from cache_layer.keyspace import Keyspace

#: Largest number of patterns for one keyspace. The replay compares each key with all of them.
MAX_PATTERNS: Final = 100


@dataclasses.dataclass(slots=True)
class Changes:
    """The changes in one keyspace: keys and patterns of keys, or all keys."""

    keys: set[str] = dataclasses.field(default_factory=set)
    patterns: set[str] = dataclasses.field(default_factory=set)
    everything: bool = False

    def __len__(self) -> int:
        return len(self.keys) + len(self.patterns)


#: Changes by keyspace; None stands for all keys of aliases whose keys cannot be listed.
Entries = dict[Keyspace | None, Changes]


class Journal:
    """Remembers what was written, deleted and invalidated during an outage.

    Beyond the limit it remembers whole keyspaces instead, so that more keys than necessary are
    removed, never fewer. Keys of an alias whose keys cannot be listed have no limit. Callers hold
    their own lock around every method.

    Args:
        max_entries: Returns the largest number of keys and patterns to remember.
    """

    def __init__(self, max_entries: Callable[[], int]) -> None:
        self._max_entries = max_entries
        self._entries: Entries = {}
        #: Keys and patterns of keyspaces that can be dropped as a whole.
        self._count = 0

    def __len__(self) -> int:
        return sum(changes.everything + len(changes) for changes in self._entries.values())

    def add_key(self, key: str, keyspace: Keyspace | None) -> None:
        """Remember a full key."""
        changes = self._changes(keyspace)
        if not (changes.everything or key in changes.keys):
            changes.keys.add(key)
            self._added(keyspace)

    def add_pattern(self, pattern: str, keyspace: Keyspace | None) -> None:
        """Remember a pattern of full keys."""
        changes = self._changes(keyspace)
        if not (changes.everything or pattern in changes.patterns):
            changes.patterns.add(pattern)
            self._added(keyspace)
            if keyspace is not None and len(changes.patterns) > MAX_PATTERNS:
                self.add_keyspace(keyspace)

    def add_keyspace(self, keyspace: Keyspace) -> None:
        """Remember a whole keyspace in place of its keys and patterns."""
        self._count -= len(self._changes(keyspace))
        self._entries[keyspace] = Changes(everything=True)

    def take(self) -> Entries:
        """Return all entries, for the replay, and empty the journal."""
        entries, self._entries = self._entries, {}
        self._count = 0
        return entries

    def give_back(self, entries: Entries) -> None:
        """Remember entries again that could not be replayed."""
        for keyspace, changes in entries.items():
            if keyspace is not None and changes.everything:
                self.add_keyspace(keyspace)
            for key in changes.keys:
                self.add_key(key, keyspace)
            for pattern in changes.patterns:
                self.add_pattern(pattern, keyspace)

    def _changes(self, keyspace: Keyspace | None) -> Changes:
        return self._entries.setdefault(keyspace, Changes())

    def _added(self, keyspace: Keyspace | None) -> None:
        if keyspace is None:
            return
        self._count += 1
        if self._count > self._max_entries():
            for each, changes in list(self._entries.items()):
                if each is not None and not changes.everything:
                    self.add_keyspace(each)
