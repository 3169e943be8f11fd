"""The base classes of the API's views, and of those on one user's sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from uuid import UUID

from django.apps import apps
from django.db import DataError, connections, router, transaction
from django.http import Http404
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control
from rest_framework.exceptions import AuthenticationFailed, NotAcceptable, NotAuthenticated
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.schemas import DefaultSchema
from rest_framework.schemas.inspectors import ViewInspector
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from agent_sessions.api.errors import ExceptionHandler, problem_response
from agent_sessions.api.headers import etag_of, is_not_modified, require_match
from agent_sessions.api.parsers import BoundedJSONParser, refuse_unreadable_body
from agent_sessions.api.permissions import (
    FailedLoginThrottle,
    Reader,
    ReadThrottle,
    WriteThrottle,
    decides_by_object,
    host_permissions,
    host_throttles,
    key_of_caller,
    owner_of_request,
    tenant_of_request,
)
from agent_sessions.api.renderers import AsciiJSONRenderer, ReadOnlyBrowsableRenderer
from agent_sessions.api.serializers import represent_session
from agent_sessions.ids import Owner
from agent_sessions.models import Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository.locking import Check
from agent_sessions.repository.users import SyncUserSessionRepository

_Dispatch = Callable[..., HttpResponseBase]


class Negotiation(DefaultContentNegotiation):
    """Answers 406, not 404, for a `?format=` that is not offered."""

    def filter_renderers(
        self,
        renderers: Iterable[BaseRenderer],
        format: str,  # noqa: A002
    ) -> list[BaseRenderer]:
        """Return the renderers of the format.

        Raises:
            NotAcceptable: No renderer has the format.
        """
        found = [renderer for renderer in renderers if renderer.format == format]
        if not found:
            raise NotAcceptable(available_renderers=list(renderers))
        return found


def _schema() -> ViewInspector:
    """Return the view's OpenAPI schema; drf-spectacular is optional."""
    if not apps.is_installed("drf_spectacular"):
        return DefaultSchema()
    from agent_sessions.api.openapi import ApiSchema

    return ApiSchema()


def _outside_transactions(view: _Dispatch) -> _Dispatch:
    """Keep ATOMIC_REQUESTS off, in whichever database a router puts the sessions."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class ApiView(APIView):
    """A view with the API's formats, errors and policies, and the policies of the project.

    The project's authentication, permissions and rates apply.

    It runs outside ATOMIC_REQUESTS: each repository operation is a transaction, and an append must
    not hold its session's lock until the answer has been written.
    """

    permission_classes = [IsAuthenticated]
    parser_classes: list[type[BaseParser]] = [BoundedJSONParser]
    renderer_classes: list[type[BaseRenderer]] = [AsciiJSONRenderer, ReadOnlyBrowsableRenderer]
    content_negotiation_class = Negotiation
    schema = _schema()
    # A project that shares resources between origins has a middleware that answers OPTIONS.
    http_method_names = [name for name in APIView.http_method_names if name != "options"]

    @_outside_transactions
    def dispatch(self, request: Any, *args: object, **kwargs: object) -> HttpResponseBase:
        """Answer the request."""
        return super().dispatch(request, *args, **kwargs)

    def get_exception_handler(self) -> ExceptionHandler:
        """Return the handler that writes problem documents."""
        return problem_response

    def get_permissions(self) -> list[Any]:
        """Return the permissions of the view and those of the project."""
        return [*super().get_permissions(), *host_permissions()]

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the rate that applies to the method, and those of the project."""
        reads = self.request.method in SAFE_METHODS
        return [ReadThrottle() if reads else WriteThrottle(), *host_throttles()]

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Check the caller, and that the body can be read."""
        super().initial(request, *args, **kwargs)
        if request.method in ("POST", "PUT", "PATCH"):
            refuse_unreadable_body(request.headers)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate.

        Raises:
            AuthenticationFailed: Also for credentials that no database can hold.
            Throttled: The address has sent too many wrong credentials.
        """
        throttle = FailedLoginThrottle()
        if "Authorization" in request.headers and not throttle.allow_request(request, self):
            self.throttled(request, throttle.wait())
        try:
            request.user  # noqa: B018  (authenticates)
        except (AuthenticationFailed, ValueError, DataError) as error:
            throttle.failed(request)
            if isinstance(error, AuthenticationFailed):
                raise
            raise AuthenticationFailed from None

    def finalize_response(
        self, request: Request, response: Response, *args: object, **kwargs: object
    ) -> Response:
        """Forbid shared caches to keep the answer, which is for one user."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_store=True)
        return response


class OwnedSessionsView(ApiView):
    """A view on one user's sessions in one tenant; its querysets never contain other rows.

    A session of another user or tenant, one that never existed and a text that is not an id get the
    same 404.
    """

    #: The key of the user who asks.
    caller_id: Any = None
    #: The key of the user whose sessions the request is about; with None there are none.
    owner_id: Any = None
    #: The tenant in which the request works.
    tenant = ""
    reader: Reader
    action: str
    #: By action, the model permission that staff need to act for another user with `?user=`.
    #:
    #: Other actions need view_session.
    staff_permissions: ClassVar[dict[str, str]] = {
        "create": "add_session",
        "partial_update": "change_session",
        "destroy": "delete_session",
        "merge_context": "change_session",
        "replace_context": "change_session",
        "bulk_status": "change_session",
        "erase": "delete_session",
        "search": "view_message",
        "export_one": "view_message",
        "export_all": "view_message",
        "messages": "view_message",
        "add_messages": "add_message",
        "events": "view_message",
        "changes": "view_message",
        "message": "view_message",
        "replace_message": "change_message",
        "delete_message": "delete_message",
        "pop_message": "delete_message",
        "replace_tail": "change_message",
        "clear_messages": "delete_message",
    }

    @property
    def repository(self) -> SyncUserSessionRepository:
        """The repository in which the sessions of this user and tenant exist, and no others.

        Raises:
            NotAuthenticated: ``initial()`` has not found the owner yet.
        """
        # Without a user it would be the repository of everybody's sessions.
        if self.owner_id is None:
            raise NotAuthenticated
        owner = Owner(self.owner_id, self.tenant)
        return SyncUserSessionRepository(owner, router.db_for_write(Session))

    @property
    def session_id(self) -> UUID:
        """The id in the address.

        Raises:
            Http404: It is not a UUID in its canonical form.
        """
        text = self.kwargs["id"]
        try:
            session_id = UUID(text)
        except ValueError:
            raise Http404 from None
        if str(session_id) != text.lower():
            raise Http404
        return session_id

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Check the caller, and find the owner of the requested sessions."""
        super().initial(request, *args, **kwargs)
        permission = f"agent_sessions.{self.permission_for_staff()}"
        self.tenant = tenant_of_request(request)
        self.owner_id = owner_of_request(request, permission)
        self.caller_id = key_of_caller(request)
        self.reader = Reader(self.caller_id, self.owner_id, permission, self.tenant)
        if "id" in self.kwargs and self.asks_for_objects():
            self.check_object_permissions(request, self.find_session())

    def asks_for_objects(self) -> bool:
        """Return whether a permission of the view or of the project may refuse one session."""
        return any(decides_by_object(permission) for permission in self.get_permissions())

    def permission_for_staff(self) -> str:
        """Return the codename of the permission that the request needs."""
        if "text" in self.request.query_params:
            # The presence of a session in the list tells what its messages contain.
            return "view_message"
        return self.staff_permissions.get(self.action, "view_session")

    def sessions(self) -> SessionQuerySet[Session]:
        """Return the sessions that this request may read or change."""
        sessions: SessionQuerySet[Session] = Session.objects.using(router.db_for_write(Session))
        return sessions.for_user(self.owner_id).in_tenant(self.tenant)

    def find_session(self, *fields: str) -> Session:
        """Return the session of the address, with ``fields`` alone if any are given.

        Raises:
            Session.DoesNotExist: The owner has no such session; the response is 404.
        """
        sessions = self.sessions().only(*fields) if fields else self.sessions()
        # Unlike first(), get() does not sort. The handler of errors makes DoesNotExist a 404.
        return sessions.get(pk=self.session_id)

    def expected_state(self) -> Check:
        """Return a check that a locked session has the state that If-Match names.

        The check raises PreconditionFailed. Without the header there is none.
        """
        if "If-Match" not in self.request.headers:
            return None
        return lambda session: require_match(self.request, etag_of(represent_session(session)))

    def session_response(
        self, session: Session, data: object = None, status: int = 200
    ) -> Response:
        """Return the session, or data of it, with its ETag; 304 if the client has this state."""
        represented = represent_session(session)
        etag = etag_of(represented)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if self.request.method in SAFE_METHODS and is_not_modified(self.request, etag):
            return Response(status=304, headers=headers)
        return Response(represented if data is None else data, status=status, headers=headers)
