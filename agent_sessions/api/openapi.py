"""What the OpenAPI schema says beyond the code. Imported where drf-spectacular is installed."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
    OpenApiViewExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    Direction,
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from agent_sessions.api import idempotency
from agent_sessions.api import serializers as ours
from agent_sessions.api.problems import PROBLEM_TYPE
from agent_sessions.conf import settings
from agent_sessions.models import MessageRole, Session, SessionStatus

TEXT = "^[^\\x00]*$"
# What a message cannot consist of without content.
SILENT_KEYS = ("role", "content", "metadata", "idempotency_key", "name", "tool_call_id")
LINES = (
    'A line a session in the chat fine-tuning format, `{"messages": […]}`, with title, agent_id, '
    "metadata, context and status where it has them. Streamed."
)
CHAT = OpenApiExample(
    "A message", value={"role": "user", "content": "Help me debug this code"}, request_only=True
)
CHAT_BATCH = OpenApiExample(
    "Several messages, all or none",
    value={
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "21 °C, sunny"},
        ]
    },
    request_only=True,
)
NEW_SESSION = OpenApiExample(
    "A session",
    value={"agent_id": "code_agent", "title": "Debug Python script", "metadata": {"team": "web"}},
    request_only=True,
)
CONTEXT = OpenApiExample("A context", value={"language": "python", "mode": "debug"})


class ProblemErrorSerializer(serializers.Serializer[Any]):
    """One thing wrong with the request: in the body (pointer) or in a parameter or header."""

    pointer = serializers.CharField(required=False, help_text="JSON Pointer into the body.")
    parameter = serializers.CharField(required=False)
    detail = serializers.CharField()
    code = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem document (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="For programs; it does not change with the language.")
    errors = ProblemErrorSerializer(many=True, required=False)  # type: ignore[assignment]


class ChatMessageSerializer(serializers.Serializer[Any]):
    """A message in the chat format of model providers."""


class StoredMessageSerializer(serializers.Serializer[Any]):
    """A message as it was given, and its place in the conversation."""

    sequence = serializers.IntegerField(min_value=1)
    created_at = serializers.DateTimeField()
    message = ChatMessageSerializer()


class StoredMessagesSerializer(serializers.Serializer[Any]):
    """Messages that were appended together."""

    results = StoredMessageSerializer(many=True)


class MessageWindowPageSerializer(serializers.Serializer[Any]):
    """A window of messages, in order."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = StoredMessageSerializer(many=True)


class AppendRequestSerializer(serializers.Serializer[Any]):
    """A message, or messages under `messages`."""


class AppendResponseSerializer(serializers.Serializer[Any]):
    """What was appended: one message as such, several under `results`."""


class ContextObjectSerializer(serializers.Serializer[Any]):
    """The context: any JSON object."""


class _ChatMessage(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.ChatMessageSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        text_or_parts = [
            {"type": "string"},
            {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
            },
        ]
        properties: dict[str, Any] = {
            "role": {"type": "string", "enum": [*MessageRole.values, *settings.EXTRA_ROLES]},
            "content": {
                "anyOf": [*text_or_parts, {"type": "null"}],
                "description": "Text, or a list of parts. It may be null or missing only where "
                "another key, such as `tool_calls`, says what the message says.",
            },
            "metadata": {"type": "object"},
            "name": {},
            "tool_calls": {"description": "Any JSON; it comes back equal."},
            "tool_call_id": {},
        }
        if direction == "request":
            properties["idempotency_key"] = {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "description": "A retry with the same key returns the first message. Printable "
                "characters. The header Idempotency-Key does the same for a whole request.",
            }
        return {
            "type": "object",
            "description": "Role and content, and any other key. It comes back equal to what "
            "was sent, whatever text is in it.",
            "required": ["role"],
            "properties": properties,
            "additionalProperties": True,
            "anyOf": [
                {"required": ["content"], "properties": {"content": {"anyOf": text_or_parts}}},
                {
                    "description": "Some other key says something.",
                    "not": {
                        "properties": {key: {} for key in SILENT_KEYS},
                        "additionalProperties": {"type": "null"},
                    },
                },
            ],
        }


class _AppendRequest(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.AppendRequestSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        message = auto_schema.resolve_serializer(ChatMessageSerializer, direction).ref
        batch = {
            "type": "object",
            "required": ["messages"],
            "properties": {
                "messages": {
                    "type": "array",
                    "items": message,
                    "minItems": 1,
                    "maxItems": ours.MAX_BATCH_MESSAGES,
                }
            },
        }
        return {"anyOf": [message, batch]}


class _AppendResponse(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.AppendResponseSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        answers = (StoredMessageSerializer, StoredMessagesSerializer)
        return {"oneOf": [auto_schema.resolve_serializer(each, direction).ref for each in answers]}


class _ContextObject(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.ContextObjectSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": True}


class _Object(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.ObjectField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": True}


class _Text(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.TextField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        schema = {"type": "string", "maxLength": self.target.max_length}
        if self.target.allow_blank:
            return {**schema, "not": {"pattern": "\\x00"}}
        # A text that must not be blank has a character to be seen.
        return {**schema, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"}


class _Confirm(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.ConfirmSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        confirm = {"type": "boolean", "const": True}
        return {"type": "object", "required": ["confirm"], "properties": {"confirm": confirm}}


class _Status(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.StatusField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        # A component of its own: it gets no other name when the host's schema has a status.
        component = ResolvedComponent(
            name="SessionStatus",
            type=ResolvedComponent.SCHEMA,
            schema={"type": "string", "enum": SessionStatus.values},
            object=SessionStatus,
        )
        auto_schema.registry.register_on_missing(component)
        reference: dict[str, Any] = component.ref
        return reference


ERRORS = {
    304: "The client has this state (If-None-Match).",
    400: "The request is not valid: `errors` says where.",
    401: "No or wrong credentials.",
    403: "Not allowed: staff only, a missing permission, or a missing CSRF token.",
    404: "There is no such session of the user's.",
    406: "The Accept header names nothing that can be answered.",
    409: "The session is archived: it can be read only.",
    412: "The session has changed since it was read (If-Match).",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too many requests: see Retry-After.",
}
READ = (401, 403, 406, 429)
WRITE = (400, *READ, 413, 415)

USER = OpenApiParameter(
    "user",
    description="For staff with the model permission: the key of the user to act for. Logged.",
    type=OpenApiTypes.STR,
)
ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH)
KEY = OpenApiParameter(
    idempotency.HEADER,
    {"type": "string", "pattern": f"^[!-~]{{1,{idempotency.MAX_LENGTH}}}$"},
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


class _Sessions(OpenApiViewExtension):
    target_class = "agent_sessions.api.sessions.SessionViewSet"

    def view_replacement(self) -> type[Any]:
        target: Any = self.target_class
        context = (ContextObjectSerializer, (400, 404, *READ))

        @extend_schema_view(
            list=operation(
                "listSessions",
                "List sessions",
                ours.SessionSummarySerializer(many=True),
                (400, *READ),
                parameters=[
                    USER,
                    OpenApiParameter(
                        "agent_id", {"type": "string", "maxLength": 255, "pattern": TEXT}
                    ),
                    OpenApiParameter(
                        "text",
                        {"type": "string", "maxLength": ours.MAX_SEARCH_TERM, "pattern": TEXT},
                        description="Words in the title or in a message.",
                    ),
                    OpenApiParameter(
                        "active",
                        OpenApiTypes.BOOL,
                        description="Status active and not expired; or, with false, the others.",
                    ),
                ],
                description="Newest first, without messages and context.",
            ),
            create=operation(
                "createSession",
                "Create a session",
                ours.SessionSerializer,
                (*WRITE, 422),
                status=201,
                request=ours.SessionSerializer,
                parameters=[
                    USER,
                    KEY,
                    etag(201),
                    OpenApiParameter(
                        "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201]
                    ),
                ],
                examples=[NEW_SESSION],
            ),
            retrieve=operation(
                "getSession",
                "One session",
                ours.SessionSerializer,
                (304, 400, 404, *READ),
                parameters=[ID, USER, IF_NONE_MATCH, etag(200, 304)],
            ),
            partial_update=operation(
                "changeSession",
                "Change title, status or metadata",
                ours.SessionSerializer,
                (*WRITE, 404, 409, 412),
                request=ours.SessionChangeSerializer,
                parameters=[ID, USER, IF_MATCH, etag(200)],
            ),
            destroy=operation(
                "deleteSession",
                "Delete a session with its messages",
                OpenApiResponse(description="It is gone."),
                (400, 404, 412, *READ),
                status=204,
                parameters=[ID, USER, IF_MATCH],
            ),
            context=operation(
                "getSessionContext",
                "The context",
                context[0],
                (304, *context[1]),
                parameters=[ID, USER, IF_NONE_MATCH, etag(200, 304)],
            ),
            bulk_status=operation(
                "setSessionStatuses",
                "Set the status of several sessions",
                inline_serializer("BulkStatusResult", {"updated": serializers.IntegerField()}),
                (*WRITE, 404),
                request=ours.BulkStatusSerializer,
                parameters=[USER],
                description="All ids must be sessions of the user: otherwise 404, and nothing "
                "changes. `updated` counts those that had another status.",
            ),
            stats=operation(
                "getSessionStats",
                "Counts over all sessions",
                ours.StatsSerializer,
                (400, *READ),
                parameters=[USER],
            ),
            search=operation(
                "searchSessions",
                "Search titles and messages",
                inline_serializer(
                    "SearchResult", {"results": ours.SessionSummarySerializer(many=True)}
                ),
                (400, *READ),
                parameters=[
                    USER,
                    OpenApiParameter(
                        "q",
                        {"type": "string", "maxLength": ours.MAX_SEARCH_TERM, "pattern": TEXT},
                        required=True,
                        description="Words; each character stands for itself.",
                    ),
                    OpenApiParameter("limit", page_size_schema()),
                ],
                description="Most relevant first. Nothing is found for an empty term.",
            ),
            export_one=operation(
                "exportSession",
                "The session as a JSON line",
                OpenApiTypes.STR,
                (400, 404, *READ),
                media_type="application/x-ndjson",
                parameters=[ID, USER],
                description=LINES,
            ),
            export_all=operation(
                "exportSessions",
                "All sessions as JSON Lines",
                OpenApiTypes.STR,
                (400, *READ),
                media_type="application/x-ndjson",
                parameters=[USER],
                description=LINES,
            ),
            cleanup=operation(
                "cleanUpSessions",
                "Complete expired sessions of all users",
                inline_serializer("CleanupResult", {"completed": serializers.IntegerField()}),
                (400, *READ),
                parameters=[USER],
                description="For staff with the permission to change sessions. Logged.",
            ),
            erase=operation(
                "eraseSessions",
                "Delete all sessions and messages of the user, for good",
                inline_serializer(
                    "EraseResult",
                    {
                        "sessions": serializers.IntegerField(),
                        "messages": serializers.IntegerField(),
                    },
                ),
                WRITE,
                request=ours.ConfirmSerializer,
                parameters=[USER],
                examples=[OpenApiExample("Confirmed", value={"confirm": True}, request_only=True)],
            ),
        )
        class Documented(target):  # type: ignore[misc]
            queryset = Session.objects.none()

            merge_context = operation(
                "mergeSessionContext",
                "Merge top-level keys into the context",
                context[0],
                (*WRITE, 404, 409, 412),
                request=ContextObjectSerializer,
                parameters=[ID, USER, IF_MATCH, etag(200)],
                examples=[CONTEXT],
            )(_copy(target.merge_context))

            replace_context = operation(
                "replaceSessionContext",
                "Replace the context",
                context[0],
                (*WRITE, 404, 409, 412),
                request=ContextObjectSerializer,
                parameters=[ID, USER, IF_MATCH, etag(200)],
                examples=[CONTEXT],
            )(_copy(target.replace_context))

            def get_queryset(self) -> Any:
                return self.queryset

        return Documented


class _Messages(OpenApiViewExtension):
    target_class = "agent_sessions.api.messages.MessagesView"

    def view_replacement(self) -> type[Any]:
        target: Any = self.target_class
        sequence = {"type": "integer", "minimum": 0, "maximum": ours.LARGEST_SEQUENCE}

        @extend_schema_view(
            get=operation(
                "listMessages",
                "A window of messages",
                MessageWindowPageSerializer,
                (400, 404, *READ),
                parameters=[
                    ID,
                    USER,
                    OpenApiParameter("after", sequence, description="Behind this sequence."),
                    OpenApiParameter("before", sequence, description="Before this sequence."),
                    OpenApiParameter("limit", page_size_schema()),
                ],
                description="Without parameters the last messages. To follow a conversation, "
                "ask with `after` = the last sequence seen: nothing is missed or repeated.",
            ),
            post=requiring_body(
                operation(
                    "addMessages",
                    "Append one or several messages",
                    AppendResponseSerializer,
                    (*WRITE, 404, 409, 422),
                    status=201,
                    request=AppendRequestSerializer,
                    parameters=[ID, USER, KEY],
                    examples=[CHAT, CHAT_BATCH],
                )
            ),
        )
        class Documented(target):  # type: ignore[misc]
            pass

        return Documented


class _Events(OpenApiViewExtension):
    target_class = "agent_sessions.api.events.EventsView"

    def view_replacement(self) -> type[Any]:
        target: Any = self.target_class
        place = {"type": "string", "pattern": "^[0-9]{0,10}$"}

        @extend_schema_view(
            get=operation(
                "followMessages",
                "New messages as server-sent events",
                OpenApiTypes.STR,
                (400, 404, *READ),
                media_type="text/event-stream",
                parameters=[
                    ID,
                    USER,
                    OpenApiParameter(
                        "Last-Event-ID",
                        place,
                        OpenApiParameter.HEADER,
                        description="The last sequence seen; browsers send it by themselves.",
                    ),
                    OpenApiParameter("after", place, description="The same, as a parameter."),
                ],
                description="Each message once and in order, as it is stored: `id` is its "
                "sequence, `data` what the list of messages shows of it. The stream ends now "
                "and then; come back with Last-Event-ID.",
            )
        )
        class Documented(target):  # type: ignore[misc]
            pass

        return Documented


class _CacheMetrics(OpenApiViewExtension):
    target_class = "agent_sessions.api.operations.CacheMetricsView"

    def view_replacement(self) -> type[Any]:
        target: Any = self.target_class

        @extend_schema_view(
            get=operation(
                "getCacheMetrics",
                "Counters of the cache",
                ContextObjectSerializer,
                (404, *READ),
                description="For staff. Of the process that answers.",
            )
        )
        class Documented(target):  # type: ignore[misc]
            pass

        return Documented


class _Health(OpenApiViewExtension):
    target_class = "agent_sessions.api.operations.HealthView"

    def view_replacement(self) -> type[Any]:
        target: Any = self.target_class
        state = {"type": "string", "enum": ["ok", "unavailable"]}
        health = {
            "type": "object",
            "required": ["status"],
            "properties": {"status": state, "database": state, "cache": {}},
        }

        @extend_schema_view(
            get=extend_schema(
                operation_id="getHealth",
                summary="Whether the service can answer",
                description="Details for staff.",
                tags=["operations"],
                responses={
                    200: health,
                    503: health,
                    (401, PROBLEM_TYPE): OpenApiResponse(
                        ProblemSerializer, description=ERRORS[401]
                    ),
                    (403, PROBLEM_TYPE): OpenApiResponse(
                        ProblemSerializer, description=ERRORS[403]
                    ),
                    (406, PROBLEM_TYPE): OpenApiResponse(
                        ProblemSerializer, description=ERRORS[406]
                    ),
                },
            )
        )
        class Documented(target):  # type: ignore[misc]
            pass

        return Documented


def _copy(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method to document without marking the one that answers requests."""

    @wraps(method)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return copy


def page_size_schema() -> dict[str, Any]:
    """Return the schema of a number of items."""
    return {"type": "integer", "minimum": 1, "maximum": settings.MAX_PAGE_SIZE}
