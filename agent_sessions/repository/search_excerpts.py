"""Loads excerpts of the messages that search found: one query for all sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F, Q, TextField, Value, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import (
    Coalesce,
    Greatest,
    Length,
    NullIf,
    RowNumber,
    StrIndex,
    Substr,
    Upper,
)

from agent_sessions.models import Message, Session
from agent_sessions.querysets import MessageQuerySet
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.search.excerpts import Excerpt, Highlighter
from agent_sessions.search.lookups import matches
from agent_sessions.search.terms import forms_of

_AROUND = 10_000
_WORDS_PLACED = 4
_COLUMNS = ("sequence", "role", "piece", "start", "length")


def load(
    sessions: Sequence[Session],
    words: Sequence[str],
    lookups: Sequence[str],
    limit: int,
    using: str,
) -> None:
    """Set the excerpts of each session: of its first messages that match by its lookup."""
    by_lookup: dict[str, list[UUID]] = {}
    for session, lookup in zip(sessions, lookups, strict=True):
        by_lookup.setdefault(lookup, []).append(session.pk)
    messages = Message.objects.using(using).for_user(sessions[0].user_id)
    read = _read_laterally if strategy_for(using).HAS_LATERAL else _read_numbered
    highlighter = Highlighter(words)
    found: dict[UUID, list[Excerpt]] = {}
    for pk, sequence, role, text, start, length in read(messages, words, by_lookup, limit):
        piece = highlighter.piece(text)
        excerpt = Excerpt(
            sequence=sequence,
            role=role,
            text=text[piece.start : piece.end],
            matches=piece.matches,
            begins_inside=start + piece.start > 1,
            ends_inside=start - 1 + piece.end < length,
        )
        found.setdefault(pk, []).append(excerpt)
    for session in sessions:
        excerpts = found.get(session.pk, ())
        session.excerpts = tuple(sorted(excerpts, key=lambda excerpt: excerpt.sequence))


def _read_laterally(
    messages: MessageQuerySet[Message],
    words: Sequence[str],
    by_lookup: Mapping[str, Sequence[UUID]],
    limit: int,
) -> list[tuple[Any, ...]]:
    """Read each session until enough messages match."""
    arms: list[str] = []
    params: list[Any] = []
    for lookup, keys in by_lookup.items():
        matching = messages.filter(
            matches("content", words, lookup), session_id=RawSQL("s.id", ())
        ).order_by("sequence")
        first = _around_match(matching, words).values_list(*_COLUMNS)[:limit]
        sql, more = first.query.get_compiler(messages.db).as_sql()
        arms.append(
            f"SELECT s.id, m.* FROM unnest(%s::uuid[]) s(id) CROSS JOIN LATERAL ({sql}) m"  # noqa: S608
        )
        params += [list(keys), *more]
    with connections[messages.db].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(arms), params)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _read_numbered(
    messages: MessageQuerySet[Message],
    words: Sequence[str],
    by_lookup: Mapping[str, Sequence[UUID]],
    limit: int,
) -> list[tuple[Any, ...]]:
    """Number all messages that match, on databases without lateral joins."""
    matching = Q()
    for lookup, keys in by_lookup.items():
        matching |= Q(matches("content", words, lookup), session_id__in=keys)
    number = Window(RowNumber(), partition_by=F("session_id"), order_by="sequence")
    first = messages.filter(matching).annotate(number=number).filter(number__lte=limit)
    return list(_around_match(first, words).values_list("session_id", *_COLUMNS).order_by())


def _around_match(
    messages: MessageQuerySet[Message], words: Sequence[str]
) -> MessageQuerySet[Message]:
    # Megabytes stay in the database: what is fetched is around the first match.
    start = Greatest(Coalesce(*_places(words), Value(1)) - _AROUND, Value(1))
    return messages.annotate(
        start=start,
        piece=Substr("content", F("start"), 2 * _AROUND, output_field=TextField()),  # type: ignore[arg-type]
        length=Length("content"),
    )


def _places(words: Sequence[str]) -> Iterator[NullIf]:
    for form in (form for word in words[:_WORDS_PLACED] for form in forms_of(word)):
        yield NullIf(StrIndex(Upper("content"), Upper(Value(form))), Value(0))
        if not form.isascii():
            # SQLite knows the upper case of ASCII only.
            for text in dict.fromkeys((form, form.lower(), form.upper(), form.title())):
                yield NullIf(StrIndex(F("content"), Value(text)), Value(0))
