"""How a search term becomes conditions, and how PostgreSQL is made fast at them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q
from django.db.models.lookups import IContains, IRegex, Lookup

if TYPE_CHECKING:
    _TextLookup = Lookup[str]
else:
    _TextLookup = Lookup

_LONGEST_SQLITE_PATTERN = 10_000
_TRIGRAM = re.compile(r"[^\W_]{3}")

MAX_WORDS = 16
"""A term of more words is looked for as one text."""


def words_of(term: str) -> list[str]:
    """Return the distinct words of a term: what stands between white space.

    A term no text can hold (with NUL or a lone surrogate) has none.
    """
    if "\x00" in term or any("\ud800" <= character <= "\udfff" for character in term):
        return []
    words = list(dict.fromkeys(term.split()))
    return words if len(words) <= MAX_WORDS else [term.strip()]


def matches(field: str, words: Sequence[str]) -> Q:
    """Return the condition that the field has all words, in any case, anywhere."""
    condition = Q()
    for word in words:
        condition &= Q(**{f"{field}__has_text": word})
    return condition


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasText(_TextLookup):
    """``field__has_text="part"``: contains the text, in any case, in any script."""

    lookup_name = "has_text"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Compare upper-case forms: on PostgreSQL the search indexes are built on them."""
        return IContains(self.lhs, self.rhs).as_sql(compiler, connection)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Keep terms without a trigram from the index, which it would read from end to end."""
        if _TRIGRAM.search(self.rhs):
            return self.as_sql(compiler, connection)
        column, params = self.process_lhs(compiler, connection)
        return f"POSITION(UPPER(%s::text) IN UPPER({column}::text)) > 0", [self.rhs, *params]

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Use Python's comparison where SQLite's knows ASCII only or refuses long patterns."""
        if self.rhs.isascii() and len(self.rhs) <= _LONGEST_SQLITE_PATTERN:
            return self.as_sql(compiler, connection)
        return IRegex(self.lhs, re.escape(self.rhs)).as_sql(compiler, connection)
