"""Views on one user's sessions: nobody else's row is ever in their querysets."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from agent_sessions.api.base import ApiView
from agent_sessions.api.conditional import demand_match, etag_of
from agent_sessions.api.fields import parse_uuid
from agent_sessions.api.permissions import Reader, owner_of_request
from agent_sessions.api.serializers import represent_session
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.locking import Check


class OwnedSessionsView(ApiView):
    """A view that knows whose sessions it is about, and finds no others.

    A session of another user, one that never was and an id that is none are the same 404.
    """

    owner_id: Any
    reader: Reader
    staff_permission = "view_session"
    """The model permission that staff need to act for another user, by `?user=`."""

    @property
    def repository(self) -> SyncSessionRepository:
        """The operations."""
        return SyncSessionRepository()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the caller and settle whose sessions the request is about."""
        super().initial(request, *args, **kwargs)
        permission = f"agent_sessions.{self.permission_for_staff()}"
        self.owner_id = owner_of_request(request, permission)
        self.reader = Reader(request.user.pk, self.owner_id, permission)

    def permission_for_staff(self) -> str:
        """Return the codename of the permission that the request needs."""
        return self.staff_permission

    def sessions(self) -> SessionQuerySet:
        """Return the sessions this request may touch."""
        queryset: SessionQuerySet = Session.objects.using(self.repository.using).for_user(
            self.owner_id
        )
        return queryset

    @property
    def session_id(self) -> UUID:
        """The id in the address. Raises Http404 if it is none."""
        session_id = parse_uuid(self.kwargs["id"])
        if session_id is None:
            raise Http404
        return session_id

    def find_session(self, queryset: SessionQuerySet | None = None) -> Session:
        """Return the session of the address, from *queryset* or all allowed. Raises Http404."""
        found = self.sessions() if queryset is None else queryset
        try:
            # Unlike first() it does not sort.
            session: Session = found.get(pk=self.session_id)
        except Session.DoesNotExist:
            raise Http404 from None
        return session

    def expected_state(self) -> Check:
        """Return what raises PreconditionFailed for a session in another state than If-Match's.

        None without that header.
        """
        if "If-Match" not in self.request.headers:
            return None
        return lambda session: demand_match(self.request, etag_of(represent_session(session)))

    def answer(self, session: Session, status: int = 200) -> Response:
        """Return the session with its ETag."""
        data = represent_session(session)
        return Response(data, status=status, headers=state_headers(etag_of(data)))


def state_headers(etag: str) -> dict[str, str]:
    """Return the headers of an answer that may be kept, and must be asked about each time."""
    return {"ETag": etag, "Cache-Control": "private, no-cache"}
