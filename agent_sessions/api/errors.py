"""Errors as problem documents (RFC 9457), on our routes alone.

Views name `problem_response` through `get_exception_handler`; the host's EXCEPTION_HANDLER stays
what it is for the host's own views.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    ObjectDoesNotExist,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.translation import gettext_lazy as _
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error

from agent_sessions.api.parsers import BodyTooLarge
from agent_sessions.api.renderers import AsciiJSONRenderer
from agent_sessions.exceptions import IdempotencyConflict, SessionArchived

PROBLEM_TYPE = "application/problem+json"


class InvalidParameter(exceptions.ValidationError):
    """A query parameter or a header, not the body, is at fault."""


class PreconditionFailed(exceptions.APIException):
    """If-Match names a state the resource is no longer in."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = _("The session has changed since it was read.")
    default_code = "precondition_failed"


class Conflict(exceptions.APIException):
    """The session's state does not allow the request."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class KeyReused(exceptions.APIException):
    """An Idempotency-Key came again with another body."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = _("This Idempotency-Key was already used with a different body.")
    default_code = "idempotency_key_reused"


def problem_response(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return the problem document for *exc*; None for what is a bug, not an answer."""
    error = _as_api_exception(exc)
    if error is None:
        return None
    request: Request | None = context.get("request")
    headers = {}
    if auth_header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    renderer = getattr(request, "accepted_renderer", None)
    # Pages for humans keep their own type.
    machine = renderer is None or isinstance(renderer, AsciiJSONRenderer)
    return Response(
        problem_document(error, request),
        status=error.status_code,
        headers=headers,
        content_type=PROBLEM_TYPE if machine else None,
    )


def problem_document(error: exceptions.APIException, request: Request | None) -> dict[str, Any]:
    """Return the members of the document: RFC 9457's, `code`, and `errors` of a bad input."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
    }
    if isinstance(error, exceptions.ValidationError):
        in_body = not isinstance(error, InvalidParameter) and (
            request is None or request.method not in ("GET", "HEAD", "OPTIONS")
        )
        document["detail"] = _("The request is not valid; see errors.")
        document["code"] = "invalid"
        document["errors"] = [
            {
                **({"pointer": _pointer(path)} if in_body else {"parameter": ".".join(path)}),
                "detail": str(detail),
                "code": getattr(detail, "code", None) or "invalid",
            }
            for path, detail in _leaves(error.detail)
        ]
    else:
        document["detail"] = str(error.detail)
        document["code"] = getattr(error.detail, "code", error.default_code)
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
    if isinstance(exc, IdempotencyConflict):
        return KeyReused()
    if isinstance(exc, DjangoValidationError):
        return exceptions.ValidationError(as_serializer_error(exc))
    if isinstance(exc, RequestDataTooBig):
        return BodyTooLarge()
    if isinstance(exc, SuspiciousOperation | MultiPartParserError | UnreadablePostError):
        return exceptions.ParseError()
    return None


def _leaves(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _leaves(value, path if key == "non_field_errors" else (*path, str(key)))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list)
            yield from _leaves(value, (*path, str(index)) if nested else path)
    else:
        yield path, detail


def _pointer(path: tuple[str, ...]) -> str:
    return "#" + "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
