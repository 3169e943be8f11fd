"""What Redis has to forget before it is read again after an outage. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_layer.keyspace import Keyspace


@dataclasses.dataclass(slots=True)
class Entries:
    """Keys, patterns and whole scopes, each remembered once."""

    keys: dict[str, Keyspace | None] = dataclasses.field(default_factory=dict)
    patterns: dict[str, Keyspace | None] = dataclasses.field(default_factory=dict)
    scopes: set[Keyspace] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.keys) + len(self.patterns) + len(self.scopes)


class Journal:
    """Remembers, up to a limit, what was written, deleted and invalidated during an outage.

    Beyond the limit it remembers whole scopes (all keys of an alias) instead: more is dropped
    than needed, never less. Keys of an alias whose keys cannot be listed are remembered however
    many they are. Callers hold a lock of their own.
    """

    def __init__(self, max_entries: Callable[[], int]) -> None:
        self._max_entries = max_entries
        self._entries = Entries()

    def __len__(self) -> int:
        return len(self._entries)

    def add_key(self, key: str, keyspace: Keyspace | None) -> None:
        """Remember a key."""
        if keyspace not in self._entries.scopes:
            self._entries.keys[key] = keyspace
            self._shrink()

    def add_pattern(self, pattern: str, keyspace: Keyspace | None) -> None:
        """Remember a pattern of full keys."""
        if keyspace not in self._entries.scopes:
            self._entries.patterns[pattern] = keyspace
            self._shrink()

    def add_keyspace(self, keyspace: Keyspace) -> None:
        """Remember a whole keyspace, which makes everything else about it superfluous."""
        entries = self._entries
        entries.scopes.add(keyspace)
        entries.keys = {key: of for key, of in entries.keys.items() if of != keyspace}
        entries.patterns = {text: of for text, of in entries.patterns.items() if of != keyspace}

    def take(self) -> Entries:
        """Hand everything over to be replayed and start afresh."""
        entries, self._entries = self._entries, Entries()
        return entries

    def give_back(self, entries: Entries) -> None:
        """Remember again what could not be replayed."""
        for keyspace in entries.scopes:
            self.add_keyspace(keyspace)
        for key, of in entries.keys.items():
            self.add_key(key, of)
        for pattern, of in entries.patterns.items():
            self.add_pattern(pattern, of)

    def _shrink(self) -> None:
        entries = self._entries
        if len(entries.keys) + len(entries.patterns) > self._max_entries():
            scopes = {*entries.keys.values(), *entries.patterns.values()}
            for keyspace in scopes:
                if keyspace is not None:
                    self.add_keyspace(keyspace)
