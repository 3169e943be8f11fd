"""Ranked search over the sessions of one user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Case, Exists, IntegerField, OuterRef, Q, QuerySet, Value, When

from agent_sessions.models import Message, Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import excerpting
from agent_sessions.search import matches, words_of
from agent_sessions.search_terms import has_boundaries

_KINDS = ("has_word", "has_prefix", "has_text")
_TITLE_WITH_PHRASE, _TITLE, _CONTENT, _PLACES = range(4)


def search(user_id: Any, term: str, limit: int, excerpts: int, using: str) -> list[Session]:
    """Return the best matches. See SyncSessionRepository.search_sessions()."""
    words = words_of(term)
    if not words:
        return []
    kinds = _KINDS if any(map(has_boundaries, words)) else _KINDS[-1:]
    sql, params = _statement(user_id, words, kinds, limit, using)
    found = list(Session.objects.using(using).raw(sql, params))
    lookups = [_lookup(kinds, session.__dict__.pop("found_at")) for session in found]
    if found and excerpts:
        excerpting.load(found, words, lookups, excerpts, using)
    return found


def _lookup(kinds: Sequence[str], found_at: int) -> str:
    """Return how to find messages of a session: where its title was found, in any way."""
    kind, place = divmod(found_at, _PLACES)
    return kinds[kind] if place == _CONTENT else kinds[-1]


def _statement(
    user_id: Any, words: Sequence[str], kinds: Sequence[str], limit: int, using: str
) -> tuple[str, list[Any]]:
    """Return one statement that looks for each kind of match only where better ones are too few.

    What is common fills the answer with whole words and is never read to its end. A part may
    be cut at the limit, by its order: each session it has in common with a better part leaves
    one place less to fill.
    """
    sessions = Session.objects.using(using).for_user(user_id)
    parts: list[tuple[int, QuerySet[Session, Any]]] = []
    if len(words) == 1 and len(kinds) > 1:
        titled = sessions.filter(matches("title", words), matches("title", words, kinds[0]))
        parts.append((_TITLE, _newest(titled, _TITLE, limit)))
    parts.append((_CONTENT, _titles(sessions, words, kinds)))
    for number, kind in enumerate(kinds):
        place = number * _PLACES + _CONTENT
        parts.append((place, _newest(_with_messages(sessions, words, kind), place, limit)))

    materialized = "MATERIALIZED" if connections[using].vendor == "postgresql" else ""
    tables: list[str] = []
    params: list[Any] = []
    for number, (place, part) in enumerate(parts):
        sql, more = part.query.get_compiler(using).as_sql()
        params += more
        if number:
            better = " UNION ".join(
                f"SELECT id FROM p{other} WHERE place < {place}"  # noqa: S608
                for other in range(number)
            )
            sql = f"SELECT q.* FROM ({sql}) q WHERE (SELECT COUNT(*) FROM ({better}) b) < %s"  # noqa: S608
            params.append(limit)
        tables.append(f"p{number} (id, place) AS {materialized} ({sql})")
    every = " UNION ALL ".join(f"SELECT * FROM p{number}" for number in range(len(parts)))  # noqa: S608
    quote = connections[using].ops.quote_name
    columns = ", ".join(f"s.{quote(str(f.column))}" for f in Session._meta.local_concrete_fields)
    statement = (
        f"WITH {', '.join(tables)} SELECT {columns}, r.place AS found_at "  # noqa: S608
        f"FROM (SELECT id, MIN(place) AS place FROM ({every}) e GROUP BY id) r "
        f"JOIN {quote(Session._meta.db_table)} s ON s.id = r.id "
        "ORDER BY r.place, s.last_activity_at DESC, s.id DESC LIMIT %s"
    )
    return statement, [*params, limit]


def _titles(
    sessions: SessionQuerySet, words: Sequence[str], kinds: Sequence[str]
) -> QuerySet[Session, Any]:
    phrase = Q(title__has_text=" ".join(words))
    places = []
    for number, kind in enumerate(kinds):
        condition = matches("title", words, kind)
        if len(words) > 1:
            value = Value(number * _PLACES + _TITLE_WITH_PHRASE)
            places.append(When(condition & phrase, then=value))
        places.append(When(condition, then=Value(number * _PLACES + _TITLE)))
    place = Case(*places, output_field=IntegerField())
    found = sessions.filter(matches("title", words)).order_by()
    return found.annotate(place=place).values_list("pk", "place")


def _with_messages(sessions: SessionQuerySet, words: Sequence[str], kind: str) -> SessionQuerySet:
    # Both users are compared: nobody finds what is another's, whatever a message says.
    found = Message.objects.using(sessions.db).filter(
        matches("content", words, kind), session_id=OuterRef("pk"), user_id=OuterRef("user_id")
    )
    return sessions.filter(Exists(found))


def _newest(sessions: SessionQuerySet, place: int, limit: int) -> QuerySet[Session, Any]:
    placed = sessions.newest_activity_first().annotate(place=Value(place))
    return placed.values_list("pk", "place")[:limit]
