"""Builds the schema of an operation from its view and its entry in OPERATIONS."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from inspect import getdoc
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from agent_sessions.api.errors import PROBLEM_TYPE
from agent_sessions.api.fields import LARGEST_SEQUENCE
from agent_sessions.api.headers import IDEMPOTENCY_KEY, KEY_PATTERN
from agent_sessions.api.openapi.components import ProblemSerializer, ReplacingMessageSerializer
from agent_sessions.api.openapi.operations import OPERATIONS, Operation

_ERRORS = {
    400: "The request is not valid: `errors` says where.",
    401: "No or wrong credentials.",
    403: "Not allowed: staff only, a missing permission, or a missing CSRF token.",
    404: "There is no such session of the user's, or no such message in it.",
    406: "The Accept header names nothing that can be answered.",
    409: (
        "The session is archived and can be read only, its messages have changed, or the project "
        "protects what would be deleted."
    ),
    411: "The body comes without a Content-Length.",
    412: "What the request is about has changed since it was read (If-Match).",
    413: "The body is too large.",
    415: "The body is not application/json, or it is compressed.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too many requests: see Retry-After.",
    503: "The database does not answer. With Retry-After the request may be sent again.",
}
_BODY_METHODS = ("POST", "PUT", "PATCH")

_ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_SEQUENCE = OpenApiParameter(
    "sequence",
    {"type": "integer", "minimum": 0, "maximum": LARGEST_SEQUENCE},
    OpenApiParameter.PATH,
)
_USER = OpenApiParameter(
    "user",
    OpenApiTypes.STR,
    description="For staff with the model permission: the key of the user to act for. Logged.",
)
_KEY = OpenApiParameter(
    IDEMPOTENCY_KEY,
    {"type": "string", "pattern": KEY_PATTERN},
    OpenApiParameter.HEADER,
    description="A retry with the same key and body gets the first answer and changes nothing.",
)
_IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The ETag of the state to be changed; any other state answers 412.",
)
_IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The ETag the client has; the same state answers 304 without a body.",
)


class ApiSchema(AutoSchema):
    """Describes the API's operations; the first line of a handler's docstring is the summary."""

    def get_operation_id(self) -> str:
        """Return the name of the operation."""
        return self._operation.id

    def get_summary(self) -> str:
        """Return the first line of the handler's docstring."""
        return self._docstring.partition("\n")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        """Return the rest of the handler's docstring as one paragraph."""
        return " ".join(self._docstring.partition("\n")[2].split())

    def get_tags(self) -> list[str]:
        """Return the group of the operation."""
        groups = [group for group in ("Message", "Session") if group in self._operation.id]
        return [f"{groups[0].lower()}s" if groups else "operations"]

    def get_filter_backends(self) -> list[object]:
        """Return the filters of the list; other operations have none."""
        return getattr(self.view, "filter_backends", []) if self._handler_name == "list" else []

    def get_override_parameters(self) -> list[Any]:
        """Return the parameters that follow from the kind of operation, and its own."""
        operation = self._operation
        parameters: list[Any] = [*operation.parameters]
        if "{id}" in self.path:
            parameters.append(_ID)
        if "{sequence}" in self.path:
            parameters.append(_SEQUENCE)
        if self._is_owned:
            parameters.append(_USER)
        if operation.takes_key:
            parameters.append(_KEY)
        if operation.is_conditional:
            parameters.append(_IF_NONE_MATCH if self.method == "GET" else _IF_MATCH)
        if operation.has_etag:
            statuses = [*operation.statuses, *([304] if self.method == "GET" else [])]
            parameters.append(_response_header("ETag", OpenApiTypes.STR, statuses))
        if operation.has_location:
            parameters.append(_response_header("Location", OpenApiTypes.URI, [201]))
        return parameters

    def get_request_serializer(self) -> Any:
        """Return the serializer of the body."""
        return self._operation.request

    def get_response_serializers(self) -> Any:
        """Return the serializers of the responses: success and each error."""
        operation = self._operation
        media = operation.media_type
        answers: dict[Any, Any] = {
            (status, media) if media else status: operation.response
            for status in operation.statuses
        }
        if operation.empty is not None:
            answers[operation.empty] = OpenApiResponse(description="There is nothing.")
        if operation.is_conditional and self.method == "GET":
            answers[304] = OpenApiResponse(description="The client has this state.")
        for status in sorted(self._errors()):
            answers[status, PROBLEM_TYPE] = OpenApiResponse(
                ProblemSerializer, description=_ERRORS[status]
            )
        return answers

    def get_examples(self) -> list[OpenApiExample]:
        """Return the examples of bodies."""
        return [*self._operation.examples]

    def _errors(self) -> set[int]:
        operation = self._operation
        found = {401, 403, 406, 429, *operation.errors}
        if 503 not in operation.statuses:
            found.add(503)
        if self._is_owned:
            found.add(400)
        if self.method in _BODY_METHODS:
            found |= {411, 413, 415}
        if "{id}" in self.path:
            found.add(404)
        if operation.takes_key:
            found.add(422)
        if operation.is_conditional and self.method != "GET":
            found.add(412)
        return found

    def _is_list_view(self, serializer: Any = None) -> bool:
        # The entries name the bodies of pages and arrays.
        return False

    def _get_request_body(self, direction: str = "request") -> Any:
        body = super()._get_request_body(direction)
        operation = self._operation
        if operation.takes_key or operation.request is ReplacingMessageSerializer:
            # Also where the schema of the body names no required property.
            body["required"] = True
        return body

    @property
    def _handler_name(self) -> str:
        return getattr(self.view, "action", None) or self.method.lower()

    @property
    def _operation(self) -> Operation:
        # A project may have a subclass of a view.
        names = [f"{cls.__name__}.{self._handler_name}" for cls in type(self.view).__mro__]
        return next(OPERATIONS[name] for name in names if name in OPERATIONS)

    @property
    def _docstring(self) -> str:
        return getdoc(getattr(self.view, self._handler_name)) or ""

    @property
    def _is_owned(self) -> bool:
        return hasattr(self.view, "permission_for_staff")


def _response_header(name: str, kind: OpenApiTypes, statuses: list[int]) -> OpenApiParameter:
    return OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=statuses)
