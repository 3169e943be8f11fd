"""The journal of an outage: the keys to remove from Redis before anyone reads from it again.

It does no I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from cache_layer.globs import escape_glob
from cache_layer.keyspace import Keyspace, literal_start

#: Largest number of patterns whose matches begin with the same text. The replay compares each key
#: that begins with it with all of them.
MAX_PATTERNS: Final = 100


@dataclasses.dataclass(slots=True)
class Changes:
    """The changes in one keyspace: keys and patterns of keys, or all keys."""

    keys: set[str] = dataclasses.field(default_factory=set)
    patterns: set[str] = dataclasses.field(default_factory=set)
    everything: bool = False
    #: The number of patterns by the text that their matches begin with.
    starts: dict[str, int] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    #: Keys to drop unless they hold a data structure, which cannot be computed again.
    values: set[str] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.keys) + len(self.values) + len(self.patterns)


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

    def add_value(self, key: str, keyspace: Keyspace | None) -> None:
        """Remember a full key whose value has another expiry or place; data structures are left."""
        changes = self._changes(keyspace)
        if not (changes.everything or key in changes.keys or key in changes.values):
            changes.values.add(key)
            self._added(keyspace)

    def add_pattern(self, pattern: str, keyspace: Keyspace | None) -> None:
        """Remember a pattern of full keys.

        Many patterns whose matches begin with the same text become one for all keys that do.
        """
        changes = self._changes(keyspace)
        if changes.everything or pattern in changes.patterns:
            return
        start = literal_start(pattern)
        whole = f"{escape_glob(start)}*"
        if whole in changes.patterns:
            return
        if keyspace is not None and changes.starts.get(start, 0) >= MAX_PATTERNS:
            if len(start) <= len(keyspace.start):
                self.add_keyspace(keyspace)
                return
            covered = {each for each in changes.patterns if literal_start(each) == start}
            changes.patterns -= covered
            self._count -= len(covered)
            pattern = whole
        changes.patterns.add(pattern)
        changes.starts[start] = changes.starts.get(start, 0) + 1
        self._added(keyspace)

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
            for key in changes.values:
                self.add_value(key, keyspace)
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
