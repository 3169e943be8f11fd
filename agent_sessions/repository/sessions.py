"""Stores and changes a session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from agent_sessions import encryption
from agent_sessions.choices import SessionStatus
from agent_sessions.exceptions import IdempotencyConflict, SessionArchived
from agent_sessions.ids import Owner
from agent_sessions.message_format import canonical, is_idempotency_key
from agent_sessions.models import Message, Session
from agent_sessions.repository import append
from agent_sessions.repository.connections import after_commit
from agent_sessions.repository.history import History
from agent_sessions.repository.locking import Check, lock_one
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.signals import session_created, session_status_changed
from agent_sessions.validators import validate_object

#: The fields of a session that update_session() takes.
CHANGEABLE = ("title", "agent_id", "status", "metadata", "expires_at")


def create(
    session: Session,
    messages: Iterable[object],
    history: History | None,
    owner: Owner,
    using: str,
) -> Session:
    """Store a new session. See SyncUserSessionRepository.create()."""
    if not isinstance(session, Session):
        raise ValidationError({"session": _("This is not a Session.")})
    key = session.idempotency_key
    if key is not None and not is_idempotency_key(key):
        raise ValidationError(
            {"idempotency_key": _("A key is a string of 1 to 255 printable characters.")}
        )
    _take_over(session, owner)
    session._state.db = using
    session.clean_fields()
    rows = append.rows_of(session.id, messages, using, place="messages[{}]")
    if history is not None:
        history.date(rows)
    rows, _firsts = append.unrepeated(rows, {})
    if session._state.adding:
        _count(session, rows, history)
    digest = _digest(session, rows) if key is not None else ""
    session.idempotency_digest = keyed_digest(digest) if encryption.encrypts() else digest
    try:
        with transaction.atomic(using=using):
            session.save(force_insert=(Session,), using=using)
            if history is not None and history.updated_at is not None:
                _set_updated_at(session, history.updated_at, using)
            Message.objects.using(using).insert(rows)
    except IntegrityError as error:
        return _stored_before(session, using, error)
    after_commit(session_created, Session, using, session=session)
    if rows:
        append.announce(session.id, rows, len(rows), using)
    return session


def _take_over(session: Session, owner: Owner) -> None:
    if owner.user is not None:
        user_id: Any = owner.user
        if session.user_id in (None, user_id):
            session.user_id = user_id
        elif str(session.user_id) != str(user_id):
            raise ValidationError({"user": _("The session is another user's.")})
    if owner.tenant:
        if not session.tenant:
            session.tenant = owner.tenant
        elif session.tenant != owner.tenant:
            raise ValidationError({"tenant": _("The session is another tenant's.")})


def update(
    session_id: UUID, changes: Mapping[str, object], owner: Owner, check: Check, using: str
) -> Session:
    """Change fields of a session. See SyncUserSessionRepository.update_session()."""
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
    session_id: UUID, context: object, replace: bool, owner: Owner, check: Check, using: str
) -> Session:
    """Merge into the context. See SyncUserSessionRepository.update_session_context()."""
    given: Any = dict(context) if isinstance(context, Mapping) else context
    _validate_context(given)
    with transaction.atomic(using=using):
        if check:
            lock_one(session_id, owner, check, using)
        session = strategy_for(using).merge_context(
            session_id, given, replace, owner, connections[using]
        )
        if session is not None and not replace:
            # Many small changes must not grow it without limit.
            _validate_context(session.context)
    if session is None:
        Session.objects.using(using).owned_by(owner).only("pk").get(pk=session_id)
        raise SessionArchived(session_id)
    return session


def _validate_context(context: object) -> None:
    try:
        validate_object(context)
    except ValidationError as error:
        raise ValidationError({"context": error.messages}) from None


def _stored_before(session: Session, using: str, error: IntegrityError) -> Session:
    sessions = Session.objects.using(using)
    if session.idempotency_key is not None:
        stored = sessions.filter(
            user_id=session.user_id,
            tenant=session.tenant,
            idempotency_key=session.idempotency_key,
        ).first()
        if stored is not None:
            # It may have been stored before texts were encrypted, or after.
            given, before = session.idempotency_digest, stored.idempotency_digest
            if keyed_digest(given) != keyed_digest(before):
                raise IdempotencyConflict(session.idempotency_key)
            return stored
    if (taken := sessions.filter(pk=session.id).first()) is not None:
        if (taken.user_id, taken.tenant, taken.created_at) == (
            session.user_id,
            session.tenant,
            session.created_at,
        ):
            # A first try has stored it, and its connection was lost.
            return taken
        raise ValidationError({"id": _("A session with this id exists.")})
    if get_user_model()._base_manager.using(using).filter(pk=session.user_id).exists():
        # The transaction of the caller sees no longer, or not yet, what is in the way.
        raise error
    raise ValidationError({"user": _("This user does not exist.")})


def _count(session: Session, rows: list[Message], history: History | None) -> None:
    session.message_count = len(rows)
    if history is None:
        if rows:
            session.last_message_at = session.last_activity_at = rows[0].created_at
        for number, row in enumerate(rows, 1):
            row.sequence = number
    session.last_sequence = max(
        rows[-1].sequence if rows else 0, 0 if history is None else history.last_sequence
    )
    for row in rows:
        row.user_id = session.user_id


def _set_updated_at(session: Session, moment: datetime, using: str) -> None:
    # Saving the row has put the present there.
    Session.objects.using(using).filter(pk=session.pk).update(updated_at=moment)
    session.updated_at = moment


def keyed_digest(digest: str) -> str:
    """Return a digest by which nobody without SECRET_KEY can try out texts."""
    if not digest or digest.startswith("~"):
        return digest
    keyed = salted_hmac("agent_sessions.idempotency", digest, algorithm="sha256").hexdigest()
    return f"~{keyed[:63]}"


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
