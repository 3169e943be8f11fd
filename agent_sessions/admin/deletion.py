"""Deletes sessions in the admin with the repository, without titles in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, gettext_lazy

from agent_sessions.admin.audit import DELETE_SESSION, record
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Session]
else:
    _ModelAdmin = admin.ModelAdmin

_BATCH = 500
_LISTED = 100
_MOST_USERS = 100


class DeletingAdmin(_ModelAdmin):
    """Deletes sessions with the repository, and writes no titles to a log."""

    def get_deleted_objects(
        self, objs: QuerySet[Session] | Iterable[Session], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return the counts of what would be deleted; Django would load every message."""
        if not isinstance(objs, QuerySet):
            objs = Session.objects.filter(pk__in=[session.pk for session in objs])
        sums = objs.order_by().aggregate(sessions=Count("pk"), messages=Sum("message_count"))
        lines = [self._deletion_line(session) for session in objs[:_LISTED]]
        if sums["sessions"] > len(lines):
            lines.append(gettext("… and %d more") % (sums["sessions"] - len(lines)))
        model_count = {
            str(Session._meta.verbose_name_plural): sums["sessions"],
            str(Message._meta.verbose_name_plural): sums["messages"] or 0,
        }
        allowed = self.has_delete_permission(request)
        missing = set() if allowed else {str(Session._meta.verbose_name)}
        return lines, model_count, missing, []

    def _deletion_line(self, session: Session) -> str:
        address = reverse(
            f"{self.admin_site.name}:agent_sessions_session_change", args=[session.pk]
        )
        return format_html('<a href="{}">{}</a> ({})', address, session, session.message_count)

    def delete_model(self, request: HttpRequest, obj: Session) -> None:
        """Delete the session through the repository."""
        SyncSessionRepository().delete(obj.pk)
        record(request, f"deletes session {obj.pk} of user {obj.user_id}", DELETE_SESSION)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        """Delete the sessions through the repository."""
        for batch in in_batches(queryset):
            for session in batch:
                # A session deleted in between needs no error.
                with suppress(Session.DoesNotExist):
                    self.delete_model(request, session)

    @admin.action(
        description=gettext_lazy("Erase all data of the users of selected sessions"),
        permissions=["delete"],
    )
    def erase_users(
        self, request: HttpRequest, queryset: QuerySet[Session]
    ) -> TemplateResponse | None:
        """Ask for confirmation, erase the data of the users, and show the report."""
        chosen = queryset.order_by("user_id", "pk").select_related(None)
        users = [*chosen.order_by().values_list("user_id", flat=True).distinct()[: _MOST_USERS + 1]]
        if len(users) > _MOST_USERS:
            text = gettext("Choose sessions of at most %d users.") % _MOST_USERS
            self.message_user(request, text, messages.ERROR)
            return None
        if request.POST.get("post"):
            for user_id in users:
                self._erase(request, user_id)
            return None
        counts = Session.objects.using(queryset.db).filter(user_id__in=users).order_by()
        names = get_user_model()._default_manager.in_bulk(users)
        rows = [
            {"name": names.get(row["user_id"], row["user_id"]), **row}
            for row in counts.values("user_id").annotate(
                sessions=Count("pk"), total=Sum("message_count")
            )
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Erase all data of users"),
            "opts": self.opts,
            "media": self.media,
            "rows": rows,
            # One session stands for its user.
            "chosen": [chosen.filter(user_id=user_id).values_list("pk")[0][0] for user_id in users],
        }
        return TemplateResponse(request, "admin/agent_sessions/erase_users.html", context)

    def _erase(self, request: HttpRequest, user_id: Any) -> None:
        erased = SyncSessionRepository().delete_user_data(user_id, by=f"user {request.user.pk}")
        record(request, f"erases the data of user {user_id}", DELETE_SESSION)
        places = ", ".join(
            f"{table} {rows}" for table, rows in {**erased.deleted, **erased.redacted}.items()
        )
        text = gettext("Erased the data of user %(user)s. Rows in every tenant: %(places)s.")
        self.message_user(
            request, text % {"user": erased.user, "places": places or 0}, messages.SUCCESS
        )

    def log_addition(self, request: HttpRequest, obj: Session, message: object) -> Any:
        """Log the creation, without the title: an erasure must leave nothing of it."""
        return super().log_addition(request, untitled(obj), message)

    def log_change(self, request: HttpRequest, obj: Session, message: object) -> Any:
        """Log the change, without the title."""
        return super().log_change(request, untitled(obj), message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Session]) -> Any:
        """Log the deletions, without titles."""
        sessions: Any = [untitled(session) for session in queryset]
        return super().log_deletions(request, sessions)


def untitled(session: Session) -> Session:
    """Return the text for the session in the admin's log, without its title."""
    return Session(pk=session.pk, agent_id=session.agent_id)


def in_batches(sessions: QuerySet[Session]) -> Iterator[list[Session]]:
    """Yield the sessions in batches, by key: rows may leave the queryset meanwhile."""
    ordered = sessions.order_by("id").select_related(None)
    page = ordered[:_BATCH]
    while batch := list(page):
        yield batch
        page = ordered.filter(pk__gt=batch[-1].pk)[:_BATCH]
