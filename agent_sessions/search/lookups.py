"""Turns the words of a search term into conditions that the search index can serve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, product
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db import models
from django.db.models import Q
from django.db.models.lookups import IContains, IRegex, Lookup

from agent_sessions.fields import ContentField
from agent_sessions.postgresql.search_index import LATIN, SPACED_SQL, spaced
from agent_sessions.search import terms
from agent_sessions.search.terms import words_of as words_of

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler

    _TextLookup = Lookup[str]
else:
    _TextLookup = Lookup

# SQL and its parameters.
_Condition: TypeAlias = tuple[str, Any]

_SIGN = r"[\u0001-/:-@\[-`{-\u007f]"
# One class of so many characters would be too many for the index.
_NEXT = rf"({_SIGN}|[0-9A-Z]|[{LATIN}]|[\u0300-\u036f])"
_LONGEST_SQLITE_PATTERN = 10_000
_MAX_CASES = 4


def matches(field: str, words: Sequence[str], lookup: str = "has_text") -> Q:
    """Return the condition that the field has all words.

    With the lookup ``has_text``, parts of words count; with ``has_prefix``, beginnings of words;
    with ``has_word``, whole words.
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

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> _Condition:
        """Search for each form, in any case."""
        forms = terms.forms_of(self.rhs)
        found = [IContains(self.lhs, form).as_sql(compiler, connection) for form in forms]
        return _joined(" OR ", found)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> _Condition:
        """Ask the index where it has trigrams of the word."""
        word = self.rhs
        column, params = self.process_lhs(compiler, connection)
        if not _is_indexed(self.lhs) or not terms.has_trigrams(word):
            return _unindexed(column, params, word)
        likes, doubtful = terms.has_likes(word), terms.needs_second_look(word)
        if likes and doubtful:
            return _unindexed(column, params, word)
        if likes:
            return _spaced_match(column, params, word)
        if terms.is_pair(word):
            return _spaced_match(column, params, word, behind=_NEXT)
        forms = terms.forms_of(word)
        found = _joined(" OR ", [_spaced_like(column, params, form) for form in forms])
        return _joined(" AND ", [found, _unindexed(column, params, word)]) if doubtful else found

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> _Condition:
        """Use Python's comparison where SQLite's knows ASCII only or refuses long patterns."""
        caseless = self.rhs.upper() == self.rhs.lower() and not terms.has_likes(self.rhs)
        if (caseless or self.rhs.isascii()) and len(self.rhs) <= _LONGEST_SQLITE_PATTERN:
            return self.as_sql(compiler, connection)
        pattern = terms.pattern_of(self.rhs)
        return IRegex(self.lhs, pattern).as_sql(compiler, connection)


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasWord(_TextLookup):
    """``field__has_word="word"``: contains the text as a whole word.

    Texts without letters, and of scripts that do not part words, are found anywhere.
    """

    lookup_name = "has_word"
    prefix = False

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> _Condition:
        """Search for the text first, which is cheap, then for its ends."""
        text: _Condition = compiler.compile(HasText(self.lhs, self.rhs))
        if not terms.has_boundaries(self.rhs):
            return text
        pattern = terms.word_pattern_of(self.rhs, prefix=self.prefix)
        return _joined(" AND ", [text, IRegex(self.lhs, pattern).as_sql(compiler, connection)])

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> _Condition:
        """Ask the index for the word and its ends."""
        word = self.rhs
        text: _Condition = compiler.compile(HasText(self.lhs, word))
        doubtful = terms.needs_second_look(word)
        if not terms.has_boundaries(word) or (doubtful and terms.has_likes(word)):
            return text
        column, params = self.process_lhs(compiler, connection)
        begins, ends = terms.ends_of(word, prefix=self.prefix)
        before, behind = _SIGN if begins else "", _SIGN if ends else ""
        # Spellings between the ends of a word leave the index fewer trigrams than without them.
        better = terms.has_likes(word) and terms.has_trigrams(word)
        alone = _is_indexed(self.lhs) and not (doubtful or better or terms.hides_in_patterns(word))
        found = _spaced_match(column, params, word, before=before, behind=behind, with_index=alone)
        return found if alone else _joined(" AND ", [text, found])


@models.CharField.register_lookup
@models.TextField.register_lookup
class HasPrefix(HasWord):
    """``field__has_prefix="wo"``: contains a word that begins with the text."""

    lookup_name = "has_prefix"
    prefix = True


LOOKUPS: dict[str, type[Lookup[str]]] = {
    each.lookup_name: each for each in (HasText, HasWord, HasPrefix)
}


def _is_indexed(lhs: Any) -> bool:
    return isinstance(lhs.output_field, ContentField)


def _unindexed(column: str, params: Iterable[object], word: str) -> _Condition:
    if terms.has_likes(word):
        return f"UPPER({column}::text) ~ UPPER(%s::text)", [*params, terms.pattern_of(word)]
    forms = terms.forms_of(word)
    cases = list(islice(chain.from_iterable(map(_cases_of, forms)), _MAX_CASES + 1))
    if len(cases) > _MAX_CASES:
        likes = ", ".join(["UPPER(%s::text)"] * len(forms))
        sql = f"UPPER({column}::text) LIKE ANY (ARRAY[{likes}])"
        return sql, [*params, *map(_like, forms)]
    # A few cases one after the other are faster than the upper case of every text.
    return f"{column}::text LIKE ANY (%s::text[])", [*params, [_like(case) for case in cases]]


def _spaced_like(column: str, params: Iterable[object], text: str) -> _Condition:
    # What stands behind a single character makes up its trigram.
    ends = "0 " if terms.is_syllable(text) else [""]
    like = f"{SPACED_SQL.format(column=column)} LIKE UPPER(%s::text)"
    return _joined(" OR ", [(like, [*params, _like(spaced(text) + end)]) for end in ends])


def _spaced_match(
    column: str,
    params: Iterable[object],
    word: str,
    *,
    before: str = "",
    behind: str = "",
    with_index: bool = True,
) -> _Condition:
    if terms.has_likes(word):
        pattern = spaced(terms.pattern_of(word))
    else:
        pattern = "|".join(re.escape(spaced(form)) for form in terms.forms_of(word))
    sql = SPACED_SQL.format(column=column)
    if not with_index:
        # For what it cannot see in a pattern the index would be read from end to end.
        sql += " || ''"
    return f"{sql} ~ ('{before}(?:' || UPPER(%s::text) || '){behind}')", [*params, pattern]


def _joined(operator: str, conditions: list[_Condition]) -> _Condition:
    if len(conditions) == 1:
        return conditions[0]
    sql = operator.join(sql for sql, _ in conditions)
    return f"({sql})", [param for _, params in conditions for param in params]


def _cases_of(text: str) -> Iterator[str]:
    variants = (dict.fromkeys((c, c.lower(), c.upper())) for c in text)
    single = ([case for case in cases if len(case) == 1] for cases in variants)
    return map("".join, product(*single))


def _like(text: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"
