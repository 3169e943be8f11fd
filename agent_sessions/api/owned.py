"""Views on one user's sessions: nobody else's row is ever in their querysets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction
from django.db.models import F
from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from agent_sessions.api.base import ApiView
from agent_sessions.api.conditional import demand_match, etag_of
from agent_sessions.api.fields import parse_uuid
from agent_sessions.api.permissions import owner_of_request
from agent_sessions.api.serializers import SessionSerializer
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import SyncSessionRepository


class OwnedSessionsView(ApiView):
    """A view that knows whose sessions it is about, and finds no others.

    A session of another user, one that never was and an id that is none are the same 404.
    """

    owner_id: Any
    staff_permission = "view_session"
    """The model permission that staff need to act for another user, by `?user=`."""

    @property
    def repository(self) -> SyncSessionRepository:
        """The operations."""
        return SyncSessionRepository()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the caller and settle whose sessions the request is about."""
        super().initial(request, *args, **kwargs)
        self.owner_id = owner_of_request(request, f"agent_sessions.{self.permission_for_staff()}")

    def permission_for_staff(self) -> str:
        """Return the codename of the permission that the request needs."""
        return self.staff_permission

    def sessions(self) -> SessionQuerySet:
        """Return the sessions this request may touch."""
        queryset: SessionQuerySet = Session.objects.using(self.repository.using).for_user(
            self.owner_id
        )
        return queryset

    def find_session(self, queryset: SessionQuerySet | None = None) -> Session:
        """Return the session of the address, from *queryset* or all allowed. Raises Http404."""
        session_id = parse_uuid(self.kwargs["id"])
        if session_id is None:
            raise Http404
        found = self.sessions() if queryset is None else queryset
        try:
            # Unlike first() it does not sort.
            session: Session = found.get(pk=session_id)
        except Session.DoesNotExist:
            raise Http404 from None
        return session

    def lock_session(self) -> Session:
        """Return the session, locked until the transaction ends. Raises Http404."""
        if connections[self.repository.using].features.has_select_for_update:
            return self.find_session(self.sessions().select_for_update())
        # SQLite waits for its turn to write only where the transaction read nothing before.
        if session_id := parse_uuid(self.kwargs["id"]):
            self.sessions().filter(pk=session_id).update(updated_at=F("updated_at"))
        return self.find_session()

    @contextmanager
    def matched_session(self) -> Iterator[Session]:
        """Give the session to a block that changes it.

        With If-Match the session is locked, and in the state the client named, until the block
        ends. Raises Http404 and PreconditionFailed.
        """
        if "If-Match" not in self.request.headers:
            yield self.find_session(self.sessions().only("id"))
            return
        with transaction.atomic(using=self.repository.using):
            session = self.lock_session()
            demand_match(self.request, etag_of(SessionSerializer(session).data))
            yield session

    def answer(self, session: Session, status: int = 200) -> Response:
        """Return the session with its ETag."""
        data = SessionSerializer(session).data
        return Response(data, status=status, headers=state_headers(etag_of(data)))


def state_headers(etag: str) -> dict[str, str]:
    """Return the headers of an answer that may be kept, and must be asked about each time."""
    return {"ETag": etag, "Cache-Control": "private, no-cache"}
