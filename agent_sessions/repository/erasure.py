"""Erases the data of a user, with a report of the erased rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.apps import apps
from django.db import models, router, transaction
from django.db.models import Count, F, Q, Sum
from django.db.models.deletion import Collector
from django.db.models.functions import Cast
from django.utils import timezone

from agent_sessions.conf import settings
from agent_sessions.ids import Owner
from agent_sessions.message_numbers import locking
from agent_sessions.models import Session
from agent_sessions.repository.connections import after_commit
from agent_sessions.repository.results import Erased
from agent_sessions.signals import sessions_deleted

audit = logging.getLogger("agent_sessions.audit")

_AnyModel = type[models.Model]


class Tally:
    """The rows that were deleted, and those that lost their texts, by table."""

    def __init__(self) -> None:
        self.deleted: Counter[str] = Counter()
        self.redacted: Counter[str] = Counter()

    def rows(self, model: _AnyModel) -> int:
        """Return how many rows of the model were deleted."""
        return self.deleted[model._meta.db_table]


def delete_user_data(owner: Owner, by: str, using: str) -> Erased:
    """Delete the data of a user. See SyncUserSessionRepository.delete_user_data()."""
    started_at = timezone.now()
    tally = Tally()
    owned = Session.objects.using(using).owned_by(owner)
    size = settings.CLEANUP_BATCH_SIZE
    try:
        while True:
            batch_tally = Tally()
            with transaction.atomic(using=using):
                batch = list(locking(owned).only("pk")[:size])
                delete_sessions(batch, using, batch_tally)
            # Counted only once they are gone.
            tally.deleted += batch_tally.deleted
            tally.redacted += batch_tally.redacted
            if len(batch) < size:
                break
    finally:
        # An erasure that breaks off has erased something, too.
        report = Erased(
            user=str(owner.user),
            tenant=owner.tenant,
            by=by,
            started_at=started_at,
            finished_at=timezone.now(),
            deleted=dict(tally.deleted),
            redacted=dict(tally.redacted),
        )
        audit.info(
            "Erased the data of user %s%s: %d sessions, %d messages%s.",
            owner.user,
            "" if owner.tenant is None else f" in tenant {owner.tenant!r}",
            report.sessions,
            report.messages,
            f", by {by.encode('unicode_escape').decode()}" if by else "",
        )
    return report


def audit_before_delete(instance: models.Model, using: str, **kwargs: object) -> None:
    """Write to the audit log what Django deletes together with a user, once that is committed."""
    owned = Session.objects.using(using).for_user(instance)
    counts = owned.order_by().aggregate(sessions=Count("pk"), messages=Sum("message_count"))
    if counts["sessions"]:
        line = "Deleted user %s with %d sessions, %d messages."
        values = instance.pk, counts["sessions"], counts["messages"]
        transaction.on_commit(lambda: audit.info(line, *values), using=using)


def delete_sessions(sessions: Sequence[Session], using: str, tally: Tally) -> None:
    """Delete locked sessions with all rows that refer to them; redact the admin's log."""
    if not sessions:
        return
    # Their keys are gone once they are deleted.
    ids = [session.pk for session in sessions]
    # Rows that are loaded need not be read again, as they are by the delete() of a queryset.
    collector = Collector(using=using)
    collector.collect(sessions)
    _redact_log(collector, using, tally)
    _total, deleted = collector.delete()
    for label, rows in deleted.items():
        tally.deleted[apps.get_model(label)._meta.db_table] += rows
    after_commit(sessions_deleted, Session, using, session_ids=ids)


def _redact_log(collector: Collector, using: str, tally: Tally) -> None:
    """Remove the texts of rows to be deleted from the admin's log.

    An entry stays, with who did what to which key, and when.
    """
    if not apps.is_installed("django.contrib.admin"):
        return
    log: Any = apps.get_model("admin", "LogEntry")
    alias = router.db_for_write(log)
    about = [
        _entries_about(model, [str(row.pk) for row in rows], alias)
        for model, rows in collector.data.items()
    ]
    about += [
        _entries_about(rows.model, _keys(rows, alias == using), alias)
        for rows in collector.fast_deletes
    ]
    entries = log._base_manager.using(alias).filter(reduce(or_, about))
    redacted = entries.update(object_repr=F("object_id"), change_message="")
    if redacted:
        tally.redacted[log._meta.db_table] += redacted


def _entries_about(model: _AnyModel, keys: Any, alias: str) -> Q:
    content_type: Any = apps.get_model("contenttypes", "ContentType")
    # The admin of a proxy has a type of its own.
    same = [each for each in apps.get_models() if each._meta.concrete_model is model]
    types = content_type.objects.db_manager(alias).get_for_models(*same, for_concrete_models=False)
    return Q(content_type__in=[each.pk for each in types.values()], object_id__in=keys)


def _keys(rows: Any, same_database: bool) -> Iterable[object]:
    """Return the keys as texts, in the database where it writes them as Python does."""
    if same_database and isinstance(rows.model._meta.pk, models.IntegerField):
        keys: Iterable[object] = rows.order_by().values_list(Cast("pk", models.TextField()))
        return keys
    return [str(key) for key in rows.order_by().values_list("pk", flat=True)]
