"""Storing and changing a session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from agent_sessions.choices import SessionStatus
from agent_sessions.exceptions import IdempotencyConflict, SessionArchived
from agent_sessions.message_format import canonical, is_idempotency_key
from agent_sessions.models import Message, Session, validate_object
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import append
from agent_sessions.repository.locking import Check, lock_one
from agent_sessions.repository.on_commit import after_commit
from agent_sessions.signals import session_created, session_status_changed

CHANGEABLE = ("title", "agent_id", "status", "metadata", "expires_at")


def create(session: Session, messages: Iterable[Any], using: str) -> Session:
    """Store a new session. See SyncSessionRepository.create()."""
    if not isinstance(session, Session):
        raise ValidationError({"session": _("This is not a Session.")})
    key = session.idempotency_key
    if key is not None and not is_idempotency_key(key):
        raise ValidationError(
            {"idempotency_key": _("A key is a string of 1 to 255 printable characters.")}
        )
    session._state.db = using
    session.clean_fields()
    rows = append.rows_of(session.pk, messages, using, place="messages[{}]")
    rows, _firsts = append.unrepeated(rows, {})
    if session._state.adding:
        _count(session, rows)
    session.idempotency_digest = _digest(session, rows) if key is not None else ""
    try:
        with transaction.atomic(using=using):
            session.save(force_insert=True, using=using)
            Message.objects.using(using).bulk_create(rows)
    except IntegrityError:
        return _stored_before(session, using)
    after_commit(session_created, Session, using, session=session)
    if rows:
        append.announce(session.pk, rows, len(rows), using)
    return session


def update(
    session_id: UUID, changes: Mapping[str, Any], owner: Any, check: Check, using: str
) -> Session:
    """Change fields of a session. See SyncSessionRepository.update_session()."""
    if unknown := [name for name in changes if name not in CHANGEABLE]:
        raise ValidationError({name: _("This field cannot be changed.") for name in unknown})
    with transaction.atomic(using=using):
        session = lock_one(session_id, owner, check, using)
        before = session.status
        for name, value in changes.items():
            setattr(session, name, value)
        changed = {*changes}
        session.clean_fields(
            exclude={field.name for field in session._meta.fields if field.name not in changed}
        )
        if before == session.status == SessionStatus.ARCHIVED:
            raise SessionArchived(session_id)
        if changed:
            session.save(using=using, update_fields=[*changed, "updated_at"])
    if session.status != before:
        after_commit(
            session_status_changed,
            Session,
            using,
            session_ids=[session.pk],
            status=session.status,
        )
    return session


def update_context(
    session_id: UUID, context: Any, replace: bool, owner: Any, check: Check, using: str
) -> Session:
    """Merge into the context. See SyncSessionRepository.update_session_context()."""
    given = dict(context) if isinstance(context, Mapping) else context
    try:
        validate_object(given)
    except ValidationError as error:
        raise ValidationError({"context": error.messages}) from None
    merge = (
        _merge_in_one_statement if connections[using].vendor == "postgresql" else _merge_under_lock
    )
    with transaction.atomic(using=using) if check else nullcontext():
        if check:
            lock_one(session_id, owner, check, using)
        session = merge(session_id, given, replace, owner, using)
    if session is None:
        _sessions(session_id, owner, using).only("pk").get()
        raise SessionArchived(session_id)
    return session


def _sessions(session_id: UUID, owner: Any, using: str) -> SessionQuerySet:
    sessions: SessionQuerySet = Session.objects.using(using).filter(pk=session_id)
    return sessions if owner is None else sessions.filter(user_id=owner)


def _merge_in_one_statement(
    session_id: UUID, context: dict[str, Any], replace: bool, owner: Any, using: str
) -> Session | None:
    options = Session._meta
    columns = ", ".join(f'"{field.column}"' for field in options.local_concrete_fields)
    merged = "%s::jsonb" if replace else "context || %s::jsonb"
    values = [canonical(context), timezone.now(), session_id, SessionStatus.ARCHIVED]
    condition = ""
    if owner is not None:
        condition = "AND user_id = %s"
        values.append(options.get_field("user").get_db_prep_value(owner, connections[using]))
    found = Session.objects.using(using).raw(
        f'UPDATE "{options.db_table}" SET context = {merged}, updated_at = %s '  # noqa: S608
        f"WHERE id = %s AND status <> %s {condition} RETURNING {columns}",
        values,
    )
    return next(iter(found), None)


def _merge_under_lock(
    session_id: UUID, context: dict[str, Any], replace: bool, owner: Any, using: str
) -> Session | None:
    sessions = _sessions(session_id, owner, using)
    now = timezone.now()
    with transaction.atomic(using=using):
        # Writing first locks the row (on SQLite the database) before the context is read.
        if not sessions.exclude(status=SessionStatus.ARCHIVED).update(updated_at=now):
            return None
        session = sessions.get()
        session.context = context if replace else {**session.context, **context}
        session.save(using=using, update_fields=["context"])
    return session


def _stored_before(session: Session, using: str) -> Session:
    sessions = Session.objects.using(using)
    if session.idempotency_key is not None:
        stored = sessions.filter(
            user_id=session.user_id, idempotency_key=session.idempotency_key
        ).first()
        if stored is not None:
            if stored.idempotency_digest != session.idempotency_digest:
                raise IdempotencyConflict(session.idempotency_key)
            return stored
    if sessions.filter(pk=session.pk).exists():
        raise ValidationError({"id": _("A session with this id exists.")})
    raise ValidationError({"user": _("This user does not exist.")})


def _count(session: Session, rows: list[Message]) -> None:
    session.message_count = session.last_sequence = len(rows)
    if rows:
        session.last_message_at = session.last_activity_at = rows[0].created_at
    for number, row in enumerate(rows, 1):
        row.sequence = number
        row.user_id = session.user_id


def _digest(session: Session, rows: list[Message]) -> str:
    # What was asked for. The row itself may have changed by the time of a retry.
    given = [
        str(session.agent_id),
        str(session.title),
        str(session.status),
        session.context,
        session.metadata,
        *(row.as_dict() for row in rows),
    ]
    return hashlib.sha256(canonical(given).encode("ascii")).hexdigest()
