"""How the words of a search term become conditions that the search indexes can serve."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q
from django.db.models.lookups import IContains, IRegex, Lookup

from agent_sessions import search_terms
from agent_sessions.search_terms import IDEOGRAPHS
from agent_sessions.search_terms import words_of as words_of

if TYPE_CHECKING:
    _TextLookup = Lookup[str]
else:
    _TextLookup = Lookup

WORDS_SQL = (
    "to_tsvector('pg_catalog.simple', translate(regexp_replace("
    rf"left({{column}}, 65536), '([{IDEOGRAPHS}])', ' \1 ', 'g'), '@./:-_<&+~', '          '))"
)
"""The words of a column, for PostgreSQL; each Chinese or Japanese character is one.

Without the ten characters its parser would take a path, an address or a tag for one word. A
tsvector holds 1 MB, which the words of so many characters never exceed.
"""

_LONGEST_SQLITE_PATTERN = 10_000
_MAX_CASES = 64
_TRIGRAM = re.compile(r"[^\W_]{3}")


def matches(field: str, words: Sequence[str], lookup: str = "has_text") -> Q:
    """Return the condition that the field has all words: as ``has_text``, parts of words count;
    as ``has_prefix``, beginnings of words; as ``has_word``, whole words.
    """
    condition = Q()
    for word in words:
        condition &= Q(**{f"{field}__{lookup}": word})
    return condition


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasText(_TextLookup):
    """``field__has_text="part"``: contains the text, in any case, in any script."""

    lookup_name = "has_text"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Compare upper-case forms: on PostgreSQL the trigram index is built on them."""
        forms = search_terms.forms_of(self.rhs)
        found = [IContains(self.lhs, form).as_sql(compiler, connection) for form in forms]
        return _joined(" OR ", found)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Keep terms without a trigram from the index, which it would read from end to end."""
        column, params = self.process_lhs(compiler, connection)
        if not _TRIGRAM.search(self.rhs):
            found = self._without_trigram(column, params)
            if not search_terms.is_ideographic(self.rhs):
                return found
            return _joined(" AND ", [found, _in_words(column, params, self.rhs)])
        if search_terms.has_likes(self.rhs):
            pattern = search_terms.pattern_of(self.rhs)
            return f"UPPER({column}::text) ~ UPPER(%s::text)", [*params, pattern]
        return self.as_sql(compiler, connection)

    def _without_trigram(self, column: str, params: Any) -> tuple[str, Any]:
        # One case after the other is several times faster than the upper case of every text.
        cases = [case for form in search_terms.forms_of(self.rhs) for case in _cases_of(form)]
        if search_terms.has_likes(self.rhs):
            return f"{column}::text ~ %s", [*params, search_terms.pattern_of(self.rhs)]
        if len(cases) > _MAX_CASES:
            return f"POSITION(UPPER(%s::text) IN UPPER({column}::text)) > 0", [self.rhs, *params]
        return f"{column}::text LIKE ANY (%s::text[])", [*params, [_like(case) for case in cases]]

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Use Python's comparison where SQLite's knows ASCII only or refuses long patterns."""
        caseless = self.rhs.upper() == self.rhs.lower() and not search_terms.has_likes(self.rhs)
        if (caseless or self.rhs.isascii()) and len(self.rhs) <= _LONGEST_SQLITE_PATTERN:
            return self.as_sql(compiler, connection)
        pattern = search_terms.pattern_of(self.rhs)
        return IRegex(self.lhs, pattern).as_sql(compiler, connection)


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasWord(_TextLookup):
    """``field__has_word="word"``: contains the text as a whole word.

    Texts without letters, and of scripts that do not part words, are found anywhere.
    """

    lookup_name = "has_word"
    prefix = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Look for the text first, which is cheap, then for its ends."""
        text: tuple[str, Any] = compiler.compile(HasText(self.lhs, self.rhs))
        if not search_terms.has_boundaries(self.rhs):
            return text
        pattern = search_terms.word_pattern_of(self.rhs, prefix=self.prefix)
        return _joined(" AND ", [text, IRegex(self.lhs, pattern).as_sql(compiler, connection)])

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Ask the index of words, too. What is cheap to see stands first, for want of an index."""
        text: tuple[str, Any] = compiler.compile(HasText(self.lhs, self.rhs))
        if not search_terms.has_boundaries(self.rhs):
            return text
        column, params = self.process_lhs(compiler, connection)
        return _joined(" AND ", [text, _in_words(column, params, self.rhs, prefix=self.prefix)])


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasPrefix(HasWord):
    """``field__has_prefix="wo"``: contains a word that begins with the text."""

    lookup_name = "has_prefix"
    prefix = True


LOOKUPS: dict[str, type[Any]] = {each.lookup_name: each for each in (HasText, HasWord, HasPrefix)}


def _in_words(
    column: str, params: Any, word: str, *, prefix: bool = False
) -> tuple[str, list[Any]]:
    # Of characters that the parser takes for no letters nothing is left to ask for.
    words = search_terms.word_query_of(word, prefix=prefix)
    query = "to_tsquery('pg_catalog.simple', %s::text)"
    sql = f"(numnode({query}) = 0 OR {WORDS_SQL.format(column=column)} @@ {query})"
    return sql, [words, *params, words]


def _joined(operator: str, conditions: list[tuple[str, Any]]) -> tuple[str, Any]:
    if len(conditions) == 1:
        return conditions[0]
    sql = operator.join(sql for sql, _ in conditions)
    return f"({sql})", [param for _, params in conditions for param in params]


def _cases_of(text: str) -> list[str]:
    variants = (dict.fromkeys((c, c.lower(), c.upper())) for c in text)
    single = ([case for case in cases if len(case) == 1] for cases in variants)
    return ["".join(case) for case in islice(product(*single), _MAX_CASES + 1)]


def _like(text: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"
