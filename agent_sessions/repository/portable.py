"""The strategy of the repository for every database, through the ORM."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, DateTimeField, Exists, F, OuterRef, Value, When
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from agent_sessions.choices import FINISHED_STATUSES, SessionStatus
from agent_sessions.ids import Owner
from agent_sessions.message_format import JsonObject
from agent_sessions.message_numbers import locking, remove
from agent_sessions.models import Message, Session, default_expiry
from agent_sessions.repository.results import Window

HAS_LATERAL = False


def insert(
    session_id: UUID, rows: list[Message], owner: Owner, connection: BaseDatabaseWrapper
) -> int | None:
    """Insert rows. See Strategy.insert()."""
    using = connection.alias
    sessions = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
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
            # Clocks differ, and who waited for the lock has an older time.
            last_message_at=Greatest(Coalesce("last_message_at", Value(now)), Value(now)),
            last_activity_at=Greatest("last_activity_at", Value(now)),
            updated_at=Greatest("updated_at", Value(now)),
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
        last, count, user_id, moment = written.values_list(
            "last_sequence", "message_count", "user_id", "last_message_at"
        ).get()
        for number, row in enumerate(rows, last - len(rows) + 1):
            row.sequence = number
            row.user_id = user_id
            row.created_at = moment or now
        Message.objects.using(using).insert(rows)
    return int(count)


def pop(
    session_id: UUID, owner: Owner, connection: BaseDatabaseWrapper
) -> tuple[Message, int] | None:
    """Take the last message back. See Strategy.pop()."""
    using = connection.alias
    sessions = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
    messages = Message.objects.using(using).for_session(session_id)
    with transaction.atomic(using=using):
        places = sessions.exclude(status=SessionStatus.ARCHIVED)
        last = locking(places).values_list("last_sequence", flat=True).first()
        message = None if last is None else messages.latest_first().first()
        if last is None or message is None:
            return None
        removed = remove(messages.filter(pk=message.pk), session_id, last)
    return message, removed.number


def is_usable_after_error(connection: BaseDatabaseWrapper) -> bool:
    """Return True: a savepoint was rolled back. See Strategy.is_usable_after_error()."""
    return True


def window(wanted: Window, connection: BaseDatabaseWrapper) -> list[Message] | None:
    """Return messages of a session. See Strategy.window()."""
    sessions = Session.objects.using(connection.alias).filter(pk=wanted.session_id)
    messages = Message.objects.using(connection.alias).for_session(wanted.session_id)
    messages = messages.owned_by(wanted.owner)
    if wanted.before is not None:
        messages = messages.before(wanted.before)
    if wanted.after is not None:
        messages = messages.after(wanted.after)
    ordered = messages.in_order() if wanted.follows else messages.latest_first()
    found = list(ordered[: wanted.limit])
    return found if found or sessions.owned_by(wanted.owner).exists() else None


def merge_context(
    session_id: UUID,
    context: JsonObject,
    replace: bool,
    owner: Owner,
    connection: BaseDatabaseWrapper,
) -> Session | None:
    """Change the context under the lock of the session. See Strategy.merge_context()."""
    using = connection.alias
    sessions = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
    now = timezone.now()
    with transaction.atomic(using=using):
        # Writing first locks the row (on SQLite the database) before the context is read.
        writable = sessions.exclude(status=SessionStatus.ARCHIVED)
        if not writable.update(updated_at=Greatest("updated_at", Value(now))):
            return None
        session = sessions.get().require_decrypted()
        session.context = context if replace else {**session.context, **context}
        session.save(using=using, update_fields=["context"])
    return session
