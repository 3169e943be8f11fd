"""How a search term becomes conditions, and how PostgreSQL is made fast at them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.lookups import IContains

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
class HasText(IContains):
    """``field__has_text="part"``: contains the text, in any case, in any script."""

    lookup_name = "has_text"

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Sequence[Any]]:
        """Use a Unicode-aware comparison where SQLite's LIKE would know ASCII only."""
        if str(self.rhs).isascii():
            return IContains.as_sql(self, compiler, connection)
        column, params = self.process_lhs(compiler, connection)
        return f"{column} REGEXP %s", [*params, f"(?i){re.escape(str(self.rhs))}"]
