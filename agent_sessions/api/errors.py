"""Errors as problem documents (RFC 9457), in the views of this API alone.

The host's EXCEPTION_HANDLER stays in force for the host's own views.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    ObjectDoesNotExist,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.translation import gettext_lazy as _
from rest_framework import exceptions, status
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.settings import api_settings

from agent_sessions.api.parsers import BodyTooLarge
from agent_sessions.api.renderers import AsciiJSONRenderer
from agent_sessions.exceptions import (
    AppendOutcomeUnknown,
    DecryptionFailed,
    IdempotencyConflict,
    SearchDisabled,
    SessionArchived,
    SessionChanged,
)
from agent_sessions.message_format import JsonObject

logger = logging.getLogger("agent_sessions")

PROBLEM_TYPE = "application/problem+json"

#: The keys that lead to a value in a request.
Path = tuple[str, ...]

ExceptionHandler = Callable[[Exception, Mapping[str, object]], Response | None]


class InvalidParameter(exceptions.ValidationError):
    """A query parameter or a header is not valid (400)."""


class PreconditionFailed(exceptions.APIException):
    """If-Match names a state that the session is no longer in (412)."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = _("The session has changed since it was read.")
    default_code = "precondition_failed"


class Conflict(exceptions.APIException):
    """The state of the session, or of the service, does not allow the request (409)."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class Unavailable(exceptions.APIException):
    """The database failed, or did not answer in time (503). A keyed request may be repeated."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = _("The service cannot answer now. Try again.")
    default_code = "unavailable"
    #: Seconds until the next attempt.
    wait: int | None = 1


class OutcomeUnknown(Unavailable):
    """The connection was lost before the database said whether it had stored the messages (503).

    Without Retry-After, because clients repeat by themselves what has one.
    """

    default_detail = _(
        "The messages may be stored or not. Read them before you send them again, and send an "
        "Idempotency-Key, with which sending twice is safe."
    )
    default_code = "outcome_unknown"
    wait = None


class KeyReused(exceptions.APIException):
    """An Idempotency-Key was sent before with another body (422)."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = _("This Idempotency-Key was already used with a different body.")
    default_code = "idempotency_key_reused"


class Undecryptable(exceptions.APIException):
    """A text cannot be decrypted (500): the key is another one, or the row was changed."""

    status_code = status.HTTP_500_INTERNAL_SERVER_ERROR
    default_detail = _("Stored texts cannot be decrypted.")
    default_code = "decryption_failed"


def problem_response(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the problem document of ``exc``, None for an unexpected one, which Django reports."""
    error = _as_api_exception(exc)
    if error is None:
        return None
    request: Request | None = context.get("request")
    unavailable = isinstance(error, Unavailable)
    if unavailable and request is not None:
        cause = str(exc.__cause__ or exc).partition("\n")[0]
        logger.error("%s %s: the database failed: %s", request.method, request.path, cause)
    undecryptable = isinstance(error, Undecryptable)
    if undecryptable and request is not None:
        logger.error("%s %s: %s", request.method, request.path, exc)
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    renderer = getattr(request, "accepted_renderer", None)
    # Pages for people keep their own media type.
    is_page = renderer is not None and not isinstance(renderer, AsciiJSONRenderer)
    response = Response(
        problem_document(error, request),
        status=error.status_code,
        headers=headers,
        content_type=None if is_page else PROBLEM_TYPE,
    )
    # Django logs errors that are not logged yet.
    setattr(response, "_has_been_logged", unavailable or undecryptable)  # noqa: B010
    return response


def problem_document(error: exceptions.APIException, request: Request | None = None) -> JsonObject:
    """Return the members of RFC 9457 with `code`, and `errors` where the input is not valid."""
    document: JsonObject = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
    }
    if not isinstance(error, exceptions.ValidationError):
        document["detail"] = str(error.detail)
        document["code"] = getattr(error.detail, "code", error.default_code)
        return document
    document["detail"] = _("The request is not valid; see errors.")
    document["code"] = "invalid"
    in_body = not isinstance(error, InvalidParameter) and (
        request is None or request.method not in SAFE_METHODS
    )
    document["errors"] = [
        {
            **({"pointer": _pointer(path)} if in_body else {"parameter": ".".join(path)}),
            "detail": str(detail),
            "code": getattr(detail, "code", None) or "invalid",
        }
        for path, detail in _leaves(error.detail)
    ]
    return document


def _as_api_exception(exc: Exception) -> exceptions.APIException | None:
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, Http404 | ObjectDoesNotExist):
        return exceptions.NotFound()
    if isinstance(exc, DjangoPermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exc, SessionArchived):
        return Conflict(_("The session is archived: it can be read only."), "session_archived")
    if isinstance(exc, SessionChanged):
        return Conflict(_("The messages have changed since they were read."), "session_changed")
    if isinstance(exc, IdempotencyConflict):
        return KeyReused()
    if isinstance(exc, SearchDisabled):
        return Conflict(_("Search is off because texts are encrypted."), "search_disabled")
    if isinstance(exc, ProtectedError | RestrictedError):
        return Conflict(_("The project keeps something that belongs to this."), "protected")
    if isinstance(exc, DecryptionFailed):
        return Undecryptable()
    if isinstance(exc, DjangoValidationError):
        return exceptions.ValidationError(as_serializer_error(exc))
    if isinstance(exc, AppendOutcomeUnknown):
        return OutcomeUnknown()
    if isinstance(exc, OperationalError | InterfaceError):
        return Unavailable()
    if isinstance(exc, RequestDataTooBig):
        return BodyTooLarge()
    if isinstance(exc, SuspiciousOperation | MultiPartParserError | UnreadablePostError):
        return exceptions.ParseError()
    return None


def _leaves(detail: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    if isinstance(detail, dict):
        # DRF's own errors have the name that the project has chosen.
        of_all = ("non_field_errors", api_settings.NON_FIELD_ERRORS_KEY)
        for key, value in detail.items():
            yield from _leaves(value, path if key in of_all else (*path, str(key)))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list)
            yield from _leaves(value, (*path, str(index)) if nested else path)
    else:
        yield path, detail


def _pointer(path: Path) -> str:
    return "#" + "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
