"""Ranked search over the sessions of one user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Case, Exists, IntegerField, OuterRef, Q, QuerySet, Value, When

from agent_sessions.models import Message, Session
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

    What is common fills the answer with whole words and is never read to its end. A kind may
    be cut at the limit, by its order: each session it has in common with a better kind leaves
    one place less to fill.
    """
    sql, params = _compiled(_titles(user_id, words, kinds, using), using)
    materialized = "MATERIALIZED" if connections[using].vendor == "postgresql" else ""
    parts = [f"titles (id, place) AS {materialized} ({sql})"]
    better = ["SELECT id FROM titles WHERE place < {}"]
    for number, kind in enumerate(kinds):
        sql, arm_params = _compiled(_contents(user_id, words, kind, limit, using), using)
        arm = f"SELECT q.*, {number * _PLACES + _CONTENT} FROM ({sql}) q"  # noqa: S608
        params += arm_params
        if number:
            found = " UNION ".join(better).format(number * _PLACES)
            arm += f" WHERE (SELECT COUNT(*) FROM ({found}) b) < %s"  # noqa: S608
            params.append(limit)
        parts.append(f"{kind} (id, place) AS {materialized} ({arm})")
        better.append(f"SELECT id FROM {kind}")  # noqa: S608
    names = ("titles", *kinds)
    every = " UNION ALL ".join(f"SELECT * FROM {name}" for name in names)  # noqa: S608
    quote = connections[using].ops.quote_name
    columns = ", ".join(f"s.{quote(str(f.column))}" for f in Session._meta.local_concrete_fields)
    statement = (
        f"WITH {', '.join(parts)} SELECT {columns}, r.place AS found_at "  # noqa: S608
        f"FROM (SELECT id, MIN(place) AS place FROM ({every}) e GROUP BY id) r "
        f"JOIN {quote(Session._meta.db_table)} s ON s.id = r.id "
        "ORDER BY r.place, s.last_activity_at DESC, s.id DESC LIMIT %s"
    )
    return statement, [*params, limit]


def _titles(
    user_id: Any, words: Sequence[str], kinds: Sequence[str], using: str
) -> QuerySet[Session, Any]:
    phrase = Q(title__has_text=" ".join(words))
    places = []
    for number, kind in enumerate(kinds):
        condition = matches("title", words, kind)
        if len(words) > 1:
            value = Value(number * _PLACES + _TITLE_WITH_PHRASE)
            places.append(When(condition & phrase, then=value))
        places.append(When(condition, then=Value(number * _PLACES + _TITLE)))
    return (
        Session.objects.using(using)
        .for_user(user_id)
        .filter(matches("title", words))
        .order_by()
        .annotate(place=Case(*places, output_field=IntegerField()))
        .values_list("pk", "place")
    )


def _contents(
    user_id: Any, words: Sequence[str], kind: str, limit: int, using: str
) -> QuerySet[Session, Any]:
    found = (
        Message.objects.using(using)
        .for_user(user_id)
        .filter(matches("content", words, kind), session_id=OuterRef("pk"))
    )
    # Both users are compared: nobody finds what is another's, whatever a message says.
    sessions = Session.objects.using(using).for_user(user_id).filter(Exists(found))
    return sessions.newest_activity_first().values_list("pk")[:limit]


def _compiled(queryset: QuerySet[Any, Any], using: str) -> tuple[str, list[Any]]:
    sql, params = queryset.query.get_compiler(using).as_sql()
    return sql, list(params)
