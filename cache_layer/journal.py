"""What Redis has to forget before it is read again after an outage. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_layer.backends.context import Scope


@dataclasses.dataclass(slots=True)
class Entries:
    """Keys, patterns and whole scopes, each remembered once."""

    keys: dict[str, Scope | None] = dataclasses.field(default_factory=dict)
    patterns: dict[str, Scope | None] = dataclasses.field(default_factory=dict)
    scopes: set[Scope] = dataclasses.field(default_factory=set)

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

    def add_key(self, key: str, scope: Scope | None) -> None:
        """Remember a key."""
        if scope not in self._entries.scopes:
            self._entries.keys[key] = scope
            self._shrink()

    def add_pattern(self, pattern: str, scope: Scope | None) -> None:
        """Remember a pattern of full keys."""
        if scope not in self._entries.scopes:
            self._entries.patterns[pattern] = scope
            self._shrink()

    def add_scope(self, scope: Scope) -> None:
        """Remember a whole scope, which makes everything else about it superfluous."""
        entries = self._entries
        entries.scopes.add(scope)
        entries.keys = {key: of for key, of in entries.keys.items() if of != scope}
        entries.patterns = {text: of for text, of in entries.patterns.items() if of != scope}

    def take(self) -> Entries:
        """Hand everything over to be replayed and start afresh."""
        entries, self._entries = self._entries, Entries()
        return entries

    def give_back(self, entries: Entries) -> None:
        """Remember again what could not be replayed."""
        for scope in entries.scopes:
            self.add_scope(scope)
        for key, of in entries.keys.items():
            self.add_key(key, of)
        for pattern, of in entries.patterns.items():
            self.add_pattern(pattern, of)

    def _shrink(self) -> None:
        entries = self._entries
        if len(entries.keys) + len(entries.patterns) > self._max_entries():
            scopes = {*entries.keys.values(), *entries.patterns.values()}
            for scope in scopes:
                if scope is not None:
                    self.add_scope(scope)
