"""What search found in the messages of sessions: one query for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connections
from django.db.models import F, QuerySet, TextField, Value
from django.db.models.functions import (
    Coalesce,
    Greatest,
    Length,
    NullIf,
    StrIndex,
    Substr,
    Upper,
)

from agent_sessions.excerpts import Excerpt, Highlighter
from agent_sessions.models import Message, Session
from agent_sessions.search import matches
from agent_sessions.search_terms import forms_of

_AROUND = 10_000
_WORDS_PLACED = 4
_AT_ONCE = 100


def load(
    sessions: Sequence[Session],
    words: Sequence[str],
    lookups: Sequence[str],
    limit: int,
    using: str,
) -> None:
    """Set the excerpts of each session: of its first messages that match by its lookup.

    One query for each hundred sessions.
    """
    arms = [
        _matching(number, session, words, lookup, limit, using).query
        for number, (session, lookup) in enumerate(zip(sessions, lookups, strict=True))
    ]
    rows: list[tuple[Any, ...]] = []
    for first in range(0, len(arms), _AT_ONCE):
        batch = [arm.get_compiler(using).as_sql() for arm in arms[first : first + _AT_ONCE]]
        statement = " UNION ALL ".join(f"SELECT * FROM ({sql}) m" for sql, _ in batch)  # noqa: S608
        with connections[using].cursor() as cursor:
            cursor.execute(statement, [param for _, params in batch for param in params])
            rows += sorted(cursor.fetchall())
    highlighter = Highlighter(words)
    found: list[list[Excerpt]] = [[] for _ in sessions]
    for number, sequence, role, text, start, length in rows:
        piece = highlighter.piece(text)
        excerpt = Excerpt(
            sequence=sequence,
            role=role,
            text=text[piece.start : piece.end],
            matches=piece.matches,
            begins_inside=start + piece.start > 1,
            ends_inside=start - 1 + piece.end < length,
        )
        found[number].append(excerpt)
    for session, excerpts in zip(sessions, found, strict=True):
        session.excerpts = tuple(excerpts)


def _matching(
    number: int, session: Session, words: Sequence[str], lookup: str, limit: int, using: str
) -> QuerySet[Message, Any]:
    # Megabytes stay in the database: what is fetched is around the first match.
    start = Greatest(Coalesce(*_places(words), Value(1)) - _AROUND, Value(1))
    return (
        Message.objects.using(using)
        .for_session(session)
        .for_user(session.user_id)
        .filter(matches("content", words, lookup))
        .order_by("sequence")
        .annotate(
            number=Value(number),
            start=start,
            text=Substr("content", F("start"), 2 * _AROUND, output_field=TextField()),
            length=Length("content"),
        )
        .values_list("number", "sequence", "role", "text", "start", "length")[:limit]
    )


def _places(words: Sequence[str]) -> Iterator[NullIf]:
    for form in (form for word in words[:_WORDS_PLACED] for form in forms_of(word)):
        yield NullIf(StrIndex(Upper("content"), Upper(Value(form))), Value(0))
        if not form.isascii():
            # SQLite knows the upper case of ASCII only.
            for text in dict.fromkeys((form, form.lower(), form.upper(), form.title())):
                yield NullIf(StrIndex(F("content"), Value(text)), Value(0))
