"""Reading messages on PostgreSQL. The ORM compiles such a query longer than it takes to answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from agent_sessions.models import Message
from agent_sessions.repository.owners import column_value
from agent_sessions.repository.results import Window

_METADATA: Any = Message._meta.get_field("metadata")
# What is known, what comes as text, and the rest.
_NAMES = ["session_id", "metadata", "created_at", "id"]
_NAMES += [f.attname for f in Message._meta.concrete_fields if f.attname not in _NAMES]
_SEQUENCE: Any = Message._meta.get_field("sequence")
_HIGHEST = 2**31 - 1
# As a number: the driver looks for the parts of each time with a regular expression.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = "(EXTRACT(epoch FROM created_at) * 1000000)::bigint"
_COLUMNS = ", ".join(_NAMES[1:]).replace("created_at", _MOMENT)

# Where the planner knows little of a session it would fetch all its messages, and sort them, for
# the sake of fifty. So a window has two ends: as many numbers as messages are asked for. Where
# messages were deleted these are too few, and the one end is left open.
_WINDOW = """
SELECT session.last_sequence, message.*
FROM agent_sessions_session AS session LEFT JOIN LATERAL (
    SELECT {columns} FROM agent_sessions_message
    WHERE session_id = %(session)s {conditions}
    ORDER BY session_id {way}, sequence {way} {limit}
) AS message ON true
WHERE session.id = %(session)s {owned}
"""
_AFTER = "AND sequence > %(after)s"
_BEFORE = "AND sequence < %(before)s"
_FIRST = (
    "AND sequence <= CASE WHEN session.last_sequence > %(end)s THEN %(end)s ELSE %(highest)s END"
)
_LAST = "AND sequence >= LEAST(%(before)s, session.last_sequence + 1::bigint) - %(limit)s"


def window(wanted: Window, connection: BaseDatabaseWrapper) -> list[Message] | None:
    """Return the first messages behind a number, in order, or the last ones from the end.

    None if the session is missing or not the owner's (where one is given).
    """
    session_id, after, before, limit, owner = wanted
    user_id = None if owner is None else column_value(owner, connection)
    if owner is not None and user_id is None:
        return None
    start = _number(0 if after is None else after)
    stop = _number(_HIGHEST + 1 if before is None else before)
    conditions = [_AFTER] * (after is not None) + [_BEFORE] * (before is not None)
    if limit is not None:
        conditions.append(_FIRST if wanted.follows else _LAST)
    values = {
        "session": session_id,
        "owner": user_id,
        "after": start,
        "before": stop,
        "limit": limit,
        "end": start + (limit or 0),
        "highest": _HIGHEST,
    }
    backwards = not wanted.follows
    last, found = _read(conditions, backwards, values, connection)
    if last is None:
        return None
    if limit is not None and len(found) < limit:
        end = min(stop, last + 1)
        more = end > limit if backwards else end > start + limit + 1
        if more:
            _last, found = _read(conditions[:-1], backwards, values, connection)
    return found


def _read(
    conditions: list[str], backwards: bool, values: dict[str, Any], connection: BaseDatabaseWrapper
) -> tuple[int | None, list[Message]]:
    """Return the session's last number, None if there is no session, and the messages."""
    statement = _WINDOW.format(
        columns=_COLUMNS,
        conditions=" ".join(conditions),
        way="DESC" if backwards else "ASC",
        limit="" if values["limit"] is None else "LIMIT %(limit)s",
        owned="" if values["owner"] is None else "AND session.user_id = %(owner)s",
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    if not rows:
        return None, []
    using, session_id, zone = connection.alias, values["session"], connection.timezone
    parse = _METADATA.from_db_value
    whole = []
    for _last, metadata, microseconds, *rest in rows:
        if metadata is not None:
            moment = _EPOCH + timedelta(microseconds=microseconds)
            if zone is not UTC:
                moment = moment.astimezone(zone) if zone else _local(moment)
            whole.append((session_id, parse(metadata, None, connection), moment, *rest))
    found = Message.from_rows(using, _NAMES, whole)
    # As they came, but for what a plan may do between the two parts of the statement.
    found.sort(key=attrgetter("sequence"), reverse=backwards)
    return rows[0][0], found


def _local(moment: datetime) -> datetime:
    return timezone.make_naive(moment, timezone.get_default_timezone())


def _number(sequence: int) -> int:
    # Beyond what the column can hold there is nothing, and the statement must not overflow.
    return max(-1, min(int(_SEQUENCE.get_prep_value(sequence)), _HIGHEST + 1))
