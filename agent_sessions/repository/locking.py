"""Locking rows of sessions, on databases with row locks and on SQLite without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connections, models, transaction

from agent_sessions.conf import settings
from agent_sessions.ids import Owner
from agent_sessions.message_numbers import locking
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet

#: Looks at a locked session before it is changed, and raises where it must stay as it is.
Check = Callable[[Session], None] | None


def lock(sessions: SessionQuerySet[Session]) -> list[UUID]:
    """Lock the sessions until the transaction ends and return their ids, in order."""
    return list(locking(sessions).values_list("pk", flat=True))


def lock_one(session_id: UUID, owner: Owner, check: Check, using: str) -> Session:
    """Lock the session until the transaction ends and return it.

    Raises:
        Session.DoesNotExist: There is no such session, or it is not the owner's.
        DecryptionFailed: A text of the session cannot be decrypted.
    """
    sessions = Session.objects.using(using).filter(pk=session_id).owned_by(owner)
    session = locking(sessions).order_by().get().require_decrypted()
    if check is not None:
        check(session)
    return session


def lock_before_delete(
    instance: Session,
    using: str,
    origin: models.Model | models.QuerySet[Any] | None,
    **kwargs: object,
) -> None:
    """Lock sessions against appends before Django deletes them, alone or with their user.

    Django deletes the messages first: one that came between would keep the session. Nothing is
    done for the repository (which gives no ``origin``): it has locked the sessions.
    """
    connection = connections[using]
    if origin is None or not connection.features.has_select_for_update:
        return
    sessions = Session.objects.using(using)
    if isinstance(origin, Session):
        lock(sessions.filter(pk=instance.pk))
        return
    # All the user's sessions at once, and once in a transaction.
    block = connection.atomic_blocks[-1]
    before, users = vars(origin).get("_agent_sessions_locked", (None, set()))
    if before is not block:
        users = set()
    if instance.user_id not in users:
        lock(sessions.for_user(instance.user_id))
        vars(origin)["_agent_sessions_locked"] = (block, users | {instance.user_id})


def in_batches(
    candidates: SessionQuerySet[Session],
    by: str,
    work: Callable[[list[UUID]], int],
    progress: Callable[[int], None] | None,
) -> int:
    """Work on all candidates in batches, and return the sum of the results of ``work``.

    They come in the order of the field ``by``. Each batch is a transaction: its rows are locked
    and candidates still, and the work makes them cease to be. Where the database can, rows that
    are locked already are left out; at the end it looks once more whether they are free.
    """
    using = candidates.db
    skip = connections[using].features.has_select_for_update_skip_locked
    total = 0
    # Each batch begins where the last one ended: what an index still has of the rows before
    # would be read again each time, and grow, while a long transaction keeps it from going.
    place: object = None
    while True:
        rest = candidates if place is None else candidates.filter(**{f"{by}__gte": place})
        batch = rest.order_by(by).values_list("pk", by)[: settings.CLEANUP_BATCH_SIZE]
        if skip:
            with transaction.atomic(using=using):
                seen = list(batch.select_for_update(skip_locked=True))
                done = work([pk for pk, _ in seen]) if seen else 0
        else:
            seen = list(batch)
            with transaction.atomic(using=using):
                found = lock(candidates.filter(pk__in=[pk for pk, _ in seen])) if seen else []
                done = work(found) if found else 0
        if not seen:
            if place is None:
                return total
            place = None
            continue
        place = seen[-1][1]
        total += done
        if progress is not None:
            progress(done)
