"""The line of numbers of a session, from which messages and changes of messages draw.

``last_sequence`` is the last number that was given out: to a message, as its sequence, or to a
change or deletion of one, as its revision. Numbers are drawn under the lock of the session's row,
so their order is the order of commit, and a reader who has seen a number has seen all below it.

The functions here take querysets of any session and message model, because the querysets of the
models write with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.models import F, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

#: The fields of a message whose change its readers must learn of.
VISIBLE = frozenset({"role", "content", "metadata", "payload", "created_at"})

#: The fields of a message that never change.
PLACE = frozenset({"session", "session_id", "sequence"})

#: How many rows one statement names.
AT_ONCE = 500


#: A queryset of sessions.
Rows = TypeVar("Rows", bound="models.QuerySet[Any]")


class Removed(NamedTuple):
    """What was deleted of a session."""

    #: The numbers of the messages, ascending.
    sequences: list[int]
    #: The number of the last deletion; the last one given out if nothing was deleted.
    number: int
    #: The rows that were deleted, by label of their model.
    rows: Mapping[str, int]


def locking(sessions: Rows) -> Rows:
    """Return the query that locks the sessions, in the order of ids, until the transaction ends.

    All callers lock in this order, so that two of them never deadlock.
    """
    sessions = sessions.order_by("pk")
    if connections[sessions.db].features.has_select_for_update:
        return sessions.select_for_update()
    # SQLite waits for its turn to write only where the transaction read nothing before.
    sessions.update(updated_at=F("updated_at"))
    return sessions


def locked_places(message_model: Any, session_ids: Iterable[UUID], using: str) -> dict[UUID, int]:
    """Lock the sessions, and return the last number that each has given out."""
    sessions = _sessions(message_model, using).filter(pk__in={*session_ids})
    return dict(locking(sessions).values_list("pk", "last_sequence"))


def remove(messages: Any, session_id: UUID, last: int) -> Removed:
    """Delete messages of one locked session; counters and readers follow.

    ``last`` is the last number that the session has given out. Each message leaves a tombstone,
    which has numbers only.
    """
    using, model = messages.db, messages.model
    rows = list(messages.order_by("sequence").values_list("pk", "sequence"))
    if not rows:
        return Removed([], last, {})
    sessions = _sessions(model, using)
    tombstones = sessions.model._meta.get_field("deleted_messages").related_model
    every = model._default_manager.using(using)
    deleted: dict[str, int] = {}
    for start in range(0, len(rows), AT_ONCE):
        batch = every.filter(pk__in=[pk for pk, _ in rows[start : start + AT_ONCE]])
        # Django's own deletion, with what a project keys to messages.
        for label, number in models.QuerySet.delete(batch)[1].items():
            deleted[label] = deleted.get(label, 0) + number
    tombstones._base_manager.using(using).bulk_create(
        [
            tombstones(session_id=session_id, sequence=sequence, revision=number)
            for number, (_, sequence) in enumerate(rows, last + 1)
        ],
        AT_ONCE,
    )
    number = last + len(rows)
    latest = model._base_manager.using(using).filter(session_id=OuterRef("pk"))
    latest = latest.order_by("-session_id", "-sequence").values("created_at")[:1]
    sessions.filter(pk=session_id).update(
        last_sequence=number,
        last_change=number,
        message_count=Greatest(F("message_count") - len(rows), Value(0)),
        last_message_at=Subquery(latest),
        updated_at=Greatest("updated_at", Value(timezone.now())),
    )
    return Removed([sequence for _, sequence in rows], number, deleted)


def number_new(messages: Sequence[Any], using: str, known: Sequence[Any] = ()) -> None:
    """Count messages that are written without the repository, and give them numbers.

    One without a number gets the next. One with a number that was given out before, or that is
    among the ``known`` messages, which are not counted, gets a revision: readers have passed
    its number.
    """
    model = type(messages[0])
    last_numbers = locked_places(model, (each.session_id for each in messages), using)
    # Not by equality: there may be thousands.
    known_ids = {id(each) for each in known}
    ordered = sorted(messages, key=lambda each: str(each.session_id))
    for session_id, group in groupby(ordered, attrgetter("session_id")):
        added = list(group)
        if session_id not in last_numbers:
            # The foreign key says so, too.
            continue
        last = last_numbers[session_id]
        change = 0
        given = [each for each in added if each.sequence is not None]
        passed = [each for each in given if id(each) in known_ids or 0 < last >= each.sequence]
        # What they bring along comes first, so that no number is given out twice.
        last = max([last, *(each.sequence for each in given)])
        for message in added:
            if message.sequence is None:
                message.sequence = last = last + 1
        for message in passed:
            message.revision = change = last = last + 1
        latest = max(message.created_at for message in added)
        changed = _sessions(model, using).filter(pk=session_id)
        changed.update(
            last_sequence=last,
            last_change=Greatest("last_change", Value(change)),
            message_count=F("message_count") + sum(id(each) not in known_ids for each in added),
            last_message_at=Greatest(Coalesce("last_message_at", Value(latest)), Value(latest)),
            last_activity_at=Greatest("last_activity_at", Value(latest)),
            updated_at=Greatest("updated_at", Value(timezone.now())),
        )


def number_changes(
    messages: Any, keys: Sequence[Any], session_ids: Iterable[UUID]
) -> dict[Any, int]:
    """Give the messages with these keys their next revisions, and return them by key.

    Their sessions are locked until the transaction ends; the caller has their ids from before it,
    because SQLite waits for its turn to write only where the transaction read nothing before.
    """
    using, model = messages.db, messages.model
    last_numbers = locked_places(model, session_ids, using)
    every = model._base_manager.using(using)
    places: list[tuple[Any, UUID]] = []
    for start in range(0, len(keys), AT_ONCE):
        rows = every.filter(pk__in=keys[start : start + AT_ONCE])
        places += rows.order_by("session_id", "sequence").values_list("pk", "session_id")
    places.sort(key=lambda place: str(place[1]))
    revisions: dict[Any, int] = {}
    for session_id, group in groupby(places, lambda place: place[1]):
        last = last_numbers[session_id]
        for pk, _ in group:
            revisions[pk] = last = last + 1
        note_change(_sessions(model, using).filter(pk=session_id), last)
    changed = [model(pk=pk, revision=revision) for pk, revision in revisions.items()]
    every.bulk_update(changed, ["revision"], AT_ONCE)
    return revisions


def note_change(sessions: Any, number: int) -> None:
    """Write that a locked session has given out this number to a change."""
    now = Value(timezone.now())
    sessions.update(
        last_sequence=number, last_change=number, updated_at=Greatest("updated_at", now)
    )


def refuse_moving(fields: Iterable[str]) -> None:
    """Raise ValueError if one of the fields is the place of a message: readers know it by that."""
    if moved := PLACE.intersection(fields):
        raise ValueError(
            f"A message keeps its {min(moved)}: delete it, and append it with "
            "add_message_to_session() of the repository."
        )


def _sessions(message_model: Any, using: str) -> Any:
    return message_model._meta.get_field("session").related_model._base_manager.using(using)
