"""Sessions: the list, one session, its context, and operations on many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import Http404, StreamingHttpResponse
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from agent_sessions.api.errors import InvalidParameter
from agent_sessions.api.events import EventActions
from agent_sessions.api.fields import AnySerializer
from agent_sessions.api.filters import SessionFilter
from agent_sessions.api.headers import session_key
from agent_sessions.api.messages import MessageActions
from agent_sessions.api.pagination import SessionPagination, parse_query
from agent_sessions.api.permissions import audit, require_staff
from agent_sessions.api.renderers import NDJSONRenderer
from agent_sessions.api.serializers import (
    BulkStatusSerializer,
    ConfirmSerializer,
    NewSessionSerializer,
    SearchQuerySerializer,
    SessionChangeSerializer,
    SessionSerializer,
    StatsSerializer,
    represent_erased,
    represent_found,
    summarize_session,
)
from agent_sessions.api.streams import counted
from agent_sessions.conf import settings
from agent_sessions.models import Session
from agent_sessions.ndjson import ndjson_response
from agent_sessions.repository import SyncSessionRepository, search
from agent_sessions.transfer import export_sessions

_EXCERPTS = 3


class SessionViewSet(MessageActions, EventActions, GenericViewSet[Session]):
    """The caller's sessions, with their messages and events."""

    lookup_field = "id"
    lookup_value_regex = "[^/]+"
    filter_backends = [DjangoFilterBackend]
    filterset_class = SessionFilter
    pagination_class = SessionPagination
    serializer_class = SessionSerializer

    def get_queryset(self) -> QuerySet[Session]:
        """Return the sessions that this request may read or change."""
        return self.sessions()

    def list(self, request: Request, **kwargs: object) -> Response:
        """List sessions.

        Newest first, without messages and context.
        """
        page = self.paginate_queryset(self.filter_queryset(self.sessions()))
        return self.get_paginated_response([summarize_session(session) for session in page or ()])

    def create(self, request: Request, **kwargs: object) -> Response:
        """Create a session."""
        session = self.repository.create(
            Session(
                user_id=self.owner_id,
                tenant=self.tenant,
                idempotency_key=session_key(request),
                **_valid(NewSessionSerializer, request),
            )
        )
        response = self.session_response(session, status=status.HTTP_201_CREATED)
        slash = "/" if request.path.endswith("/") else ""
        path = f"{request.path.rstrip('/')}/{session.pk}{slash}"
        response["Location"] = request.build_absolute_uri(path)
        return response

    def retrieve(self, request: Request, **kwargs: object) -> Response:
        """Get a session with its context."""
        return self.session_response(self.find_session())

    def partial_update(self, request: Request, **kwargs: object) -> Response:
        """Change title, status or metadata."""
        changes = _valid(SessionChangeSerializer, request)
        changed = self.repository.update_session(self.session_id, changes, self.expected_state())
        return self.session_response(changed)

    def destroy(self, request: Request, **kwargs: object) -> Response:
        """Delete a session with its messages."""
        session_id = self.session_id
        self.repository.delete(session_id, self.expected_state())
        audit.info(
            "User %s deleted session %s of user %s.", request.user.pk, session_id, self.owner_id
        )
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, url_path="context")
    def context(self, request: Request, **kwargs: object) -> Response:
        """Get the context."""
        session = self.find_session()
        return self.session_response(session, session.context)

    @context.mapping.patch
    def merge_context(self, request: Request, **kwargs: object) -> Response:
        """Merge the top-level keys of the body into the context."""
        return self._write_context(request, replace=False)

    @context.mapping.put
    def replace_context(self, request: Request, **kwargs: object) -> Response:
        """Put the body in place of the context."""
        return self._write_context(request, replace=True)

    def _write_context(self, request: Request, *, replace: bool) -> Response:
        if not isinstance(request.data, dict):
            raise ValidationError({"non_field_errors": ["This is not an object."]})
        changed = self.repository.update_session_context(
            self.session_id, request.data, replace, self.expected_state()
        )
        return self.session_response(changed, changed.context)

    @action(detail=False, methods=["post"], url_path="bulk-status")
    def bulk_status(self, request: Request, **kwargs: object) -> Response:
        """Set the status of several sessions.

        All ids must be sessions of the user: otherwise the answer is 404 and nothing changes.
        `updated` counts those that had another status.
        """
        if "If-Match" in request.headers:
            raise InvalidParameter({"If-Match": [_("It names the state of one session.")]})
        wanted = _valid(BulkStatusSerializer, request)
        ids = set(wanted["session_ids"])
        named = self.sessions().filter(pk__in=ids)
        if named.count() != len(ids):
            raise Http404
        if self.asks_for_objects():
            for session in named:
                self.check_object_permissions(request, session)
        updated = self.repository.bulk_update_session_status(ids, wanted["status"])
        return Response({"updated": updated})

    @action(detail=False)
    def stats(self, request: Request, **kwargs: object) -> Response:
        """Count sessions and messages."""
        return Response(StatsSerializer(self.repository.get_session_stats()).data)

    @action(detail=False)
    def search(self, request: Request, **kwargs: object) -> Response:
        """Search titles and messages.

        Whole words before beginnings of words, those before other parts; then titles before
        messages; then the most recent. Each session carries pieces of up to three messages that
        match. Nothing is found for an empty term.
        """
        query = parse_query(SearchQuerySerializer, request)
        owner, using = self.repository.owner, self.repository.using
        found = search.search(
            owner, query["q"], query["limit"], _EXCERPTS, using, deferred=("context",)
        )
        return Response({"results": [represent_found(session) for session in found]})

    @action(detail=True, url_path="export", renderer_classes=[NDJSONRenderer])
    def export_one(self, request: Request, **kwargs: object) -> StreamingHttpResponse:
        """Export the session as a JSON line.

        In the chat fine-tuning format, `{"messages": […]}`, with title, agent_id, metadata,
        context and status where it has them. Streamed.
        """
        session = self.find_session("id")
        pieces = export_sessions(self.sessions().filter(pk=session.pk))
        return self._export(request, pieces, f"session-{session.pk}.jsonl")

    @action(detail=False, url_path="export", renderer_classes=[NDJSONRenderer])
    def export_all(self, request: Request, **kwargs: object) -> StreamingHttpResponse:
        """Export all sessions as JSON Lines.

        A line a session in the chat fine-tuning format, as of one session. Streamed.
        """
        return self._export(request, export_sessions(self.sessions()), "sessions.jsonl")

    @staticmethod
    def _export(request: Request, pieces: Iterator[bytes], filename: str) -> StreamingHttpResponse:
        is_async = isinstance(request._request, ASGIRequest)
        return counted(
            "export",
            request.user.pk,
            settings.MAX_EXPORTS_PER_USER,
            ndjson_response(request._request, pieces, filename),
            None if is_async else settings.MAX_WSGI_EXPORTS,
        )

    @action(detail=False, methods=["post"])
    def cleanup(self, request: Request, **kwargs: object) -> Response:
        """Complete expired sessions of all users.

        For staff with the permission to change sessions. Logged.
        """
        require_staff(request, "agent_sessions.change_session")
        completed = SyncSessionRepository().cleanup_expired_sessions()
        audit.info("staff user %s ran the cleanup: %d sessions", request.user.pk, completed)
        return Response({"completed": completed})

    @action(detail=False, methods=["post"])
    def erase(self, request: Request, **kwargs: object) -> Response:
        """Delete all sessions and messages of the user for good.

        In every tenant, unless the project gives its API tenants: then in that of the request.

        The answer is a report, without texts: how many rows were deleted in which table, and how
        many stay without the texts they had, by whom and when, and in which tenant.
        """
        _valid(ConfirmSerializer, request)
        # Without tenants in the API nobody but the user has a say in what is the user's.
        tenant = None if settings.API_TENANT is None else self.tenant
        erased = SyncSessionRepository().delete_user_data(
            self.owner_id, tenant, by=f"user {request.user.pk}"
        )
        return Response(represent_erased(erased))


def _valid(serializer_class: type[AnySerializer], request: Request) -> dict[str, Any]:
    serializer = serializer_class(data=request.data)
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data
