"""Appending through the ORM, for every database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, DateTimeField, Exists, F, OuterRef, Value, When
from django.db.models.functions import Greatest

from agent_sessions.choices import FINISHED_STATUSES, SessionStatus
from agent_sessions.models import Message, Session, default_expiry


def insert(
    session_id: UUID, rows: list[Message], owner: Any, connection: BaseDatabaseWrapper
) -> int | None:
    """Insert the rows behind the last message and complete them with their numbers.

    Returns the session's count of messages; None if the session is missing, archived, not
    the owner's (where one is given) or has a message with one of the idempotency keys. Raises
    IntegrityError, and leaves the transaction usable, if such a message came at that moment.
    """
    using = connection.alias
    sessions = Session.objects.using(using).filter(pk=session_id)
    if owner is not None:
        sessions = sessions.filter(user_id=owner)
    if keys := [row.idempotency_key for row in rows if row.idempotency_key is not None]:
        stored = Message.objects.using(using).filter(
            session_id=OuterRef("pk"), idempotency_key__in=keys
        )
        sessions = sessions.filter(~Exists(stored))
    now = rows[0].created_at
    expiry = default_expiry(now)
    with transaction.atomic(using=using):
        # The first statement writes: SQLite can then wait for its turn, and everywhere the
        # row is locked before the numbers are read.
        changed = sessions.exclude(status=SessionStatus.ARCHIVED).update(
            last_sequence=F("last_sequence") + len(rows),
            message_count=F("message_count") + len(rows),
            last_message_at=now,
            last_activity_at=now,
            updated_at=now,
            status=Case(
                When(status__in=FINISHED_STATUSES, then=Value(SessionStatus.ACTIVE)),
                default=F("status"),
            ),
            expires_at=expiry
            and Case(
                When(expires_at__isnull=False, then=Greatest(F("expires_at"), Value(expiry))),
                output_field=DateTimeField(),
            ),
        )
        if not changed:
            return None
        written = Session.objects.using(using).filter(pk=session_id)
        last, count, user_id = written.values_list(
            "last_sequence", "message_count", "user_id"
        ).get()
        for number, row in enumerate(rows, last - len(rows) + 1):
            row.sequence = number
            row.user_id = user_id
        Message.objects.using(using).bulk_create(rows)
    return int(count)
