"""The strategy of the repository for PostgreSQL, with its own statements."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.deletion import Collector
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.conf import settings
from agent_sessions.fields import ExactEncoder
from agent_sessions.ids import Owner, UserKey
from agent_sessions.message_format import JsonObject, clean_text, storable_json
from agent_sessions.models import Message, Session, default_expiry
from agent_sessions.moments import as_stored
from agent_sessions.postgresql.append_function import NAME
from agent_sessions.postgresql.pop_function import NAME as POP
from agent_sessions.repository import portable
from agent_sessions.repository.results import Window

HAS_LATERAL = True

_CALL = f"SELECT {NAME}(%s, %s, %s, %s, %s, %s, %s)"
#: Largest number of bytes in one call: the limit of an array in PostgreSQL's binary JSON.
LARGEST_CALL = 2**28 - 1

# Made once: json.dumps would make one for each message.
_encode = json.JSONEncoder(ensure_ascii=False).encode


_USER: Any = Session._meta.get_field("user")
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
_POP_CALL = f"SELECT {_COLUMNS}, number FROM {POP}(%s, %s, %s, %s)"  # noqa: S608

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
_OWNED = {
    "owner": " AND session.user_id = %(owner)s",
    "tenant": " AND session.tenant = %(tenant)s",
}
_AFTER = "AND sequence > %(after)s"
_BEFORE = "AND sequence < %(before)s"
_FIRST = (
    "AND sequence <= CASE WHEN session.last_sequence > %(end)s THEN %(end)s ELSE %(highest)s END"
)
_LAST = "AND sequence >= LEAST(%(before)s, session.last_sequence + 1::bigint) - %(limit)s"


def insert(
    session_id: UUID, rows: list[Message], owner: Owner, connection: BaseDatabaseWrapper
) -> int | None:
    """Insert rows: one call of a function, one round trip. See Strategy.insert().

    Raises:
        ValidationError: PostgreSQL cannot take so many bytes at once.
    """
    user_id = _column_value(owner, connection)
    if owner.user is not None and user_id is None:
        return None
    now = rows[0].created_at
    expiry = default_expiry(now)
    keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
    # As texts: for each of its own types the driver would look for a way to write it, and it
    # writes a JSON text many times faster than an array.
    values = (
        str(session_id),
        None if user_id is None else str(user_id),
        owner.tenant,
        now.isoformat(),
        None if expiry is None else expiry.isoformat(),
        _written(rows),
        json.dumps(keys) if keys else None,
    )
    with connection.cursor() as cursor:
        cursor.execute(_CALL, values)
        written = cursor.fetchone()[0]
    if written is None:
        return None
    count, last, user, seconds, ids = json.loads(written)
    user_id = _user_key_field().to_python(user)
    moment = now + timedelta(seconds=seconds) if seconds else now
    for sequence, row, pk in zip(range(last - len(rows) + 1, last + 1), rows, ids, strict=True):
        # Past the descriptors: the row is new, and nothing hangs on what it had there.
        row.__dict__.update(id=pk, sequence=sequence, user_id=user_id, created_at=moment)
        row._state.adding = False
    return int(count)


def pop(
    session_id: UUID, owner: Owner, connection: BaseDatabaseWrapper
) -> tuple[Message, int] | None:
    """Take the last message back: one call of a function. See Strategy.pop()."""
    every = Message.objects.using(connection.alias)
    if not Collector(using=connection.alias).can_fast_delete(every):
        # Signals of a project, or its rows that refer to messages, take part in the deletion.
        return portable.pop(session_id, owner, connection)
    user_id = _column_value(owner, connection)
    if owner.user is not None and user_id is None:
        return None
    values = (
        str(session_id),
        None if user_id is None else str(user_id),
        owner.tenant,
        timezone.now().isoformat(),
    )
    with connection.cursor() as cursor:
        cursor.execute(_POP_CALL, values)
        row = cursor.fetchone()
    if row is None:
        return None
    return _messages([row[:-1]], session_id, connection)[0], row[-1]


def is_usable_after_error(connection: BaseDatabaseWrapper) -> bool:
    """Return whether no transaction is open: an error ends it. See the Strategy."""
    return connection.get_autocommit()


def window(wanted: Window, connection: BaseDatabaseWrapper) -> list[Message] | None:
    """Return messages of a session. See Strategy.window().

    The ORM takes longer to compile such a query than PostgreSQL to answer it.
    """
    session_id, after, before, limit, owner = wanted
    user_id = _column_value(owner, connection)
    if owner.user is not None and user_id is None:
        return None
    start = _number(0 if after is None else after)
    # Messages are numbered from 1, and one of an import may have 0.
    first = max(start, 0)
    stop = _number(_HIGHEST + 1 if before is None else before)
    conditions = [_AFTER] * (after is not None) + [_BEFORE] * (before is not None)
    if limit is not None:
        conditions.append(_FIRST if wanted.follows else _LAST)
    values = {
        "session": session_id,
        "owner": user_id,
        "tenant": owner.tenant,
        "after": start,
        "before": stop,
        "limit": limit,
        "end": first + (limit or 0),
        "highest": _HIGHEST,
    }
    backwards = not wanted.follows
    last, found = _read(conditions, backwards, values, connection)
    if last is None:
        return None
    if limit is not None and len(found) < limit:
        end = min(stop, last + 1)
        more = end > limit if backwards else end > first + limit + 1
        if more:
            _last, found = _read(conditions[:-1], backwards, values, connection)
    return found


def _read(
    conditions: list[str],
    backwards: bool,
    values: dict[str, int | str | UUID | None],
    connection: BaseDatabaseWrapper,
) -> tuple[int | None, list[Message]]:
    """Return the session's last number, None if there is no session, and the messages."""
    statement = _WINDOW.format(
        columns=_COLUMNS,
        conditions=" ".join(conditions),
        way="DESC" if backwards else "ASC",
        limit="" if values["limit"] is None else "LIMIT %(limit)s",
        owned="".join(condition for name, condition in _OWNED.items() if values[name] is not None),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    if not rows:
        return None, []
    stored = [columns for _last, *columns in rows if columns[0] is not None]
    found = _messages(stored, values["session"], connection)
    # As they came, but for what a plan may do between the two parts of the statement.
    found.sort(key=attrgetter("sequence"), reverse=backwards)
    return rows[0][0], found


def _messages(
    rows: Iterable[Sequence[Any]], session_id: object, connection: BaseDatabaseWrapper
) -> list[Message]:
    """Return the messages of rows of ``_COLUMNS``."""
    zone, parse = connection.timezone, _METADATA.from_db_value
    whole = []
    for metadata, microseconds, *rest in rows:
        moment = _EPOCH + timedelta(microseconds=microseconds)
        if zone is not UTC:
            moment = moment.astimezone(zone) if zone else as_stored(moment)
        whole.append((session_id, parse(metadata, None, connection), moment, *rest))
    return Message.from_rows(connection.alias, _NAMES, whole)


def _number(sequence: int) -> int:
    # No row has a number beyond the range of the column, and the statement must not overflow.
    return max(-1, min(int(_SEQUENCE.get_prep_value(sequence)), _HIGHEST + 1))


def merge_context(
    session_id: UUID,
    context: JsonObject,
    replace: bool,
    owner: Owner,
    connection: BaseDatabaseWrapper,
) -> Session | None:
    """Change the context in one statement. See Strategy.merge_context()."""
    if settings.CIPHER is not None:
        # PostgreSQL cannot merge what it cannot read.
        return portable.merge_context(session_id, context, replace, owner, connection)
    user_id = _column_value(owner, connection)
    if owner.user is not None and user_id is None:
        return None
    options = Session._meta
    columns = ", ".join(f'"{field.column}"' for field in options.local_concrete_fields)
    merged = "%(context)s::jsonb" if replace else "context || %(context)s::jsonb"
    mergeable = "" if replace else " AND jsonb_typeof(context) = 'object'"
    owned = "" if user_id is None else " AND user_id = %(owner)s"
    owned += "" if owner.tenant is None else " AND tenant = %(tenant)s"
    found = Session.objects.using(connection.alias).raw(
        f'UPDATE "{options.db_table}" SET context = {merged}, '  # noqa: S608
        f"updated_at = GREATEST(updated_at, %(now)s) "
        f"WHERE id = %(session)s AND status <> %(archived)s{owned}{mergeable} RETURNING {columns}",
        {
            "context": json.dumps(context, cls=ExactEncoder),
            "now": timezone.now(),
            "session": session_id,
            "archived": SessionStatus.ARCHIVED,
            "owner": user_id,
            "tenant": owner.tenant,
        },
    )
    for session in found:
        return session.require_decrypted()
    # Also where the context is encrypted, though the cipher was taken away: that raises.
    return portable.merge_context(session_id, context, replace, owner, connection)


@cache
def _user_key_field() -> Any:
    # Only when it is asked for is every model there.
    return _USER.target_field


def _column_value(owner: Owner, connection: BaseDatabaseWrapper) -> UserKey | None:
    """Return the value of the user's key in the column; None for any user, and for impossible keys.

    The database would refuse the number, and end the transaction.
    """
    if owner.user is None:
        return None
    value: UserKey = _USER.get_prep_value(owner.user)
    ranges: Any = connection.ops.integer_field_ranges
    low, high = ranges.get(_user_key_field().get_internal_type(), (None, None))
    return value if high is None or low <= value <= high else None


def _written(rows: list[Message]) -> str:
    text = _encode([_columns(row) for row in rows])
    if len(text) > LARGEST_CALL // 4 and len(text.encode()) > LARGEST_CALL:
        problem = _("The messages of one call have more than %d bytes.") % LARGEST_CALL
        raise ValidationError({"messages": problem})
    return text


def _columns(row: Message) -> tuple[Any, ...]:
    if settings.CIPHER is not None and settings.ENCRYPT:
        return row.role, "", {}, row.sealed_payload(), row.idempotency_key
    return (
        row.role,
        clean_text(row.text),
        storable_json(row.metadata) if row.metadata else {},
        row.payload,
        row.idempotency_key,
    )
