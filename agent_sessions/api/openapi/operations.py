"""How an operation is documented: its answer, its errors, its parameters."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    Direction,
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)

from agent_sessions.api import idempotency
from agent_sessions.api.errors import PROBLEM_TYPE
from agent_sessions.api.openapi.components import ProblemSerializer
from agent_sessions.conf import settings

ERRORS = {
    304: "The client has this state (If-None-Match).",
    400: "The request is not valid: `errors` says where.",
    401: "No or wrong credentials.",
    403: "Not allowed: staff only, a missing permission, or a missing CSRF token.",
    404: "There is no such session of the user's.",
    406: "The Accept header names nothing that can be answered.",
    409: "The session is archived: it can be read only.",
    411: "The body comes without a Content-Length.",
    412: "The session has changed since it was read (If-Match).",
    413: "The body is too large.",
    415: "The body is not application/json, or it is compressed.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too many requests: see Retry-After.",
}
READ = (401, 403, 406, 429)
WRITE = (400, *READ, 411, 413, 415)

USER = OpenApiParameter(
    "user",
    description="For staff with the model permission: the key of the user to act for. Logged.",
    type=OpenApiTypes.STR,
)
ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH)
KEY = OpenApiParameter(
    idempotency.HEADER,
    {"type": "string", "pattern": idempotency.PATTERN},
    OpenApiParameter.HEADER,
    description="A retry with the same key and body gets the first answer and changes nothing.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The ETag of the state to be changed; any other state answers 412.",
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The ETag the client has; the same state answers 304 without a body.",
)


class _RequiredBody:
    """Marks the body as required where the schema of it names no required property."""

    def _get_request_body(self, direction: Direction = "request") -> Any:
        body = super()._get_request_body(direction)  # type: ignore[misc]
        body["required"] = True
        return body


def requiring_body(document: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the decorator, with the body marked as required."""

    def decorate(method: Any) -> Any:
        method = document(method)
        schema = method.kwargs["schema"]
        method.kwargs["schema"] = type("RequiredBody", (_RequiredBody, schema), {})
        return method

    return decorate


def etag(*statuses: int) -> OpenApiParameter:
    """Return the response header ETag of the statuses."""
    return OpenApiParameter(
        "ETag", OpenApiTypes.STR, OpenApiParameter.HEADER, response=list(statuses)
    )


def operation(
    operation_id: str,
    summary: str,
    answer: Any,
    errors: Iterable[int],
    *,
    status: int = 200,
    media_type: str | None = None,
    request: Any = None,
    parameters: Iterable[OpenApiParameter] = (),
    examples: Iterable[OpenApiExample] = (),
    description: str | None = None,
) -> Callable[[Any], Any]:
    """Return the decorator that documents an operation, its answer and all its errors."""
    responses: dict[Any, Any] = {(status, media_type) if media_type else status: answer}
    for code in sorted(set(errors)):
        if code == 304:
            responses[code] = OpenApiResponse(description=ERRORS[code])
        else:
            responses[code, PROBLEM_TYPE] = OpenApiResponse(
                ProblemSerializer, description=ERRORS[code]
            )
    documented: Callable[[Any], Any] = extend_schema(
        operation_id=operation_id,
        summary=summary,
        description=description,
        request=request,
        responses=responses,
        parameters=list(parameters),
        examples=list(examples),
        tags=["sessions" if "essage" not in operation_id else "messages"]
        if "ession" in operation_id or "essage" in operation_id
        else ["operations"],
    )
    return documented


def copy_of(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method to document without marking the one that answers requests."""

    @wraps(method)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return copy


def page_size_schema() -> dict[str, Any]:
    """Return the schema of a number of items."""
    return {"type": "integer", "minimum": 1, "maximum": settings.MAX_PAGE_SIZE}
