"""Ranked search over the sessions of one user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from django.db import connections
from django.db.models.expressions import Col

from agent_sessions import encryption
from agent_sessions.ids import Owner
from agent_sessions.models import Message, Session
from agent_sessions.repository import search_excerpts
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.search.lookups import LOOKUPS, words_of
from agent_sessions.search.terms import has_boundaries

_KINDS = ("has_word", "has_prefix", "has_text")
_TITLE_WITH_PHRASE, _TITLE, _CONTENT, _PLACES = range(4)

_SESSIONS = f'"{Session._meta.db_table}"'
_MESSAGES = f'"{Message._meta.db_table}"'
_TITLES = Session._meta.get_field("title")
_CONTENTS = Message._meta.get_field("content")
_NEWEST = (
    "SELECT s.id, {place} AS place FROM {session} s WHERE {owned} AND {condition} "
    "ORDER BY s.last_activity_at DESC, s.id DESC LIMIT %s"
)
_FEW_SESSIONS, _FEW_MESSAGES, _FEW_FOUND = 1_000, 2_000, 200
_FEW = (
    f"few (are) AS MATERIALIZED (SELECT COUNT(*) <= {_FEW_SESSIONS} "  # noqa: S608
    f"AND COALESCE(SUM(message_count), 0) <= {_FEW_MESSAGES} FROM (SELECT message_count "
    f"FROM {_SESSIONS} s WHERE {{owned}} LIMIT {_FEW_SESSIONS + 1}) n)"
)
_HAS_MESSAGE = (
    "EXISTS (SELECT 1 FROM {message} m "
    "WHERE m.session_id = s.id AND m.user_id = %s AND {condition})"
)


def search(
    owner: Owner,
    term: str,
    limit: int,
    excerpts: int,
    using: str,
    deferred: Collection[str] = (),
) -> list[Session]:
    """Return the best matches. See SyncUserSessionRepository.search_sessions().

    ``deferred`` names fields that are not loaded.
    """
    words = words_of(term)
    encryption.refuse_search()
    if not words:
        return []
    kinds = _KINDS if any(map(has_boundaries, words)) else _KINDS[-1:]
    sql, params = _statement(owner, words, kinds, limit, using, deferred)
    found = list(Session.objects.using(using).raw(sql, params))
    lookups = [_lookup(kinds, session.__dict__.pop("found_at")) for session in found]
    if found and excerpts:
        search_excerpts.load(found, words, lookups, excerpts, using)
    return found


def _lookup(kinds: Sequence[str], found_at: int) -> str:
    """Return the lookup for messages of a found session; any lookup if its title was found."""
    kind, place = divmod(found_at, _PLACES)
    return kinds[kind] if place == _CONTENT else kinds[-1]


class _Part(NamedTuple):
    #: What ranks below this place is better than anything in the part.
    place: int
    sql: str
    params: list[object]


def _statement(
    owner: Owner,
    words: Sequence[str],
    kinds: Sequence[str],
    limit: int,
    using: str,
    deferred: Collection[str],
) -> tuple[str, list[object]]:
    """Return one statement that searches for each kind of match only if better ones are too few.

    What is common fills the answer with whole words and is never read to its end. A part may
    be cut at the limit, by its order: each session it has in common with a better part leaves
    one place less to fill.
    """
    terms = _Terms(words, using)
    # Words of scripts without spaces stand nowhere better than anywhere.
    is_ranked = len(kinds) > 1
    user = Session._meta.get_field("user").get_db_prep_value(owner.user, connections[using])
    owned, owned_params = "s.user_id = %s", [user]
    if owner.tenant is not None:
        owned, owned_params = f"{owned} AND s.tenant = %s", [user, owner.tenant]
    parts: list[_Part] = []
    title, title_params = terms.condition("s", _TITLES, kinds[-1])
    if is_ranked and len(words) == 1:
        word, word_params = terms.condition("s", _TITLES, kinds[0])
        sql = _NEWEST.format(session=_SESSIONS, place=_TITLE, owned=owned, condition=word)
        parts.append(_Part(_TITLE, sql, [*owned_params, *word_params, limit]))
    place, place_params = _place_of_title(terms, kinds)
    sql = f"SELECT s.id, {place} FROM {_SESSIONS} s WHERE {owned} AND {title}"  # noqa: S608
    parts.append(_Part(_CONTENT, sql, [*place_params, *owned_params, *title_params]))
    few = is_ranked and strategy_for(using).HAS_LATERAL
    if few:
        # One look at all that matches takes a third of the time of one for each kind.
        content, content_params = terms.condition("m", _CONTENTS, kinds[-1])
        place, place_params = _place_of_message(terms, kinds)
        sql = (
            f"SELECT m.session_id, {place} FROM {_MESSAGES} m "  # noqa: S608
            f"WHERE m.user_id = %s AND {content} LIMIT {_FEW_FOUND + 1}"
        )
        parts.append(_Part(_CONTENT, sql, [*place_params, user, *content_params]))
    for number, kind in enumerate(kinds):
        content, params = terms.condition("m", _CONTENTS, kind)
        at = number * _PLACES + _CONTENT
        # Both users are compared, so that nobody finds sessions of another user.
        exists = _HAS_MESSAGE.format(message=_MESSAGES, condition=content)
        sql = _NEWEST.format(session=_SESSIONS, place=at, owned=owned, condition=exists)
        parts.append(_Part(at, sql, [*owned_params, user, *params, limit]))
    shortcut = len(parts) - len(kinds) - 1 if few else None
    fields = [each for each in Session._meta.local_concrete_fields if each.name not in deferred]
    columns = ", ".join(f's."{field.column}"' for field in fields)
    return _joined(parts, columns, owned, owned_params, limit, shortcut)


def _joined(
    parts: Sequence[_Part],
    columns: str,
    owned: str,
    owned_params: Sequence[object],
    limit: int,
    few: int | None,
) -> tuple[str, list[object]]:
    """Join the parts; ``few`` is the one that stands for those behind it, if it is not cut."""
    materialized = "" if few is None else "MATERIALIZED"
    tables: list[str] = []
    params: list[object] = []
    if few is not None:
        tables.append(_FEW.format(owned=owned))
        params += owned_params
    for number, part in enumerate(parts):
        sql = part.sql
        params += part.params
        if number:
            better = " UNION ".join(
                f"SELECT id FROM p{other} WHERE place < {part.place}"  # noqa: S608
                for other in range(number)
                if other != few
            )
            sql = f"SELECT * FROM ({sql}) q WHERE (SELECT COUNT(*) FROM ({better}) b) < %s"  # noqa: S608
            params.append(limit)
            if number == few:
                sql += " AND (SELECT are FROM few)"
            elif few is not None and number > few:
                sql += (
                    f" AND (SELECT NOT are OR (SELECT COUNT(*) FROM p{few}) > {_FEW_FOUND} "  # noqa: S608
                    "FROM few)"
                )
        tables.append(f"p{number} (id, place) AS {materialized} ({sql})")
    every = " UNION ALL ".join(f"SELECT * FROM p{number}" for number in range(len(parts)))  # noqa: S608
    statement = (
        f"WITH {', '.join(tables)} SELECT {columns}, r.place AS found_at "  # noqa: S608
        f"FROM (SELECT id, MIN(place) AS place FROM ({every}) e GROUP BY id) r "
        f"JOIN {_SESSIONS} s ON s.id = r.id AND {owned} "
        "ORDER BY r.place, s.last_activity_at DESC, s.id DESC LIMIT %s"
    )
    return statement, [*params, *owned_params, limit]


def _place_of_title(terms: _Terms, kinds: Sequence[str]) -> tuple[str, list[object]]:
    cases: list[str] = []
    params: list[object] = []
    phrase, phrase_params = terms.phrase("s", _TITLES)
    for number, kind in enumerate(kinds):
        condition, more = terms.condition("s", _TITLES, kind)
        if len(terms.words) > 1:
            best = number * _PLACES + _TITLE_WITH_PHRASE
            cases.append(f"WHEN {condition} AND {phrase} THEN {best}")
            params += [*more, *phrase_params]
        cases.append(f"WHEN {condition} THEN {number * _PLACES + _TITLE}")
        params += more
    return f"CASE {' '.join(cases)} END", params


def _place_of_message(terms: _Terms, kinds: Sequence[str]) -> tuple[str, list[object]]:
    cases: list[str] = []
    params: list[object] = []
    for number, kind in enumerate(kinds[:-1]):
        condition, more = terms.condition("m", _CONTENTS, kind)
        cases.append(f"WHEN {condition} THEN {number * _PLACES + _CONTENT}")
        params += more
    return f"CASE {' '.join(cases)} ELSE {(len(kinds) - 1) * _PLACES + _CONTENT} END", params


class _Terms:
    """Conditions on columns. Written by hand, the statement is made in a third of the time."""

    def __init__(self, words: Sequence[str], using: str) -> None:
        self.words = words
        self._compiler = Session.objects.using(using).query.get_compiler(using)

    def condition(self, table: str, field: Any, kind: str) -> tuple[str, list[object]]:
        return self._all(Col(table, field), kind, self.words)

    def phrase(self, table: str, field: Any) -> tuple[str, list[object]]:
        return self._all(Col(table, field), "has_text", [" ".join(self.words)])

    def _all(self, column: Col, kind: str, words: Sequence[str]) -> tuple[str, list[object]]:
        compiled = [self._compiler.compile(LOOKUPS[kind](column, word)) for word in words]
        sql = " AND ".join(condition for condition, _ in compiled)
        return f"({sql})", [param for _, params in compiled for param in params]
