"""The parts of each operation in the schema that its view does not have."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from agent_sessions.api import serializers
from agent_sessions.api.openapi import components
from agent_sessions.api.openapi.components import TEXT_PATTERN, ContextObjectSerializer
from agent_sessions.api.pagination import PageQuerySerializer
from agent_sessions.message_format import JsonObject


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The name of an operation, its bodies and parameters."""

    id: str
    response: object
    #: The statuses of success.
    statuses: tuple[int, ...] = (200,)
    #: The status of success without a body, where there is nothing to answer.
    empty: int | None = None
    media_type: str | None = None
    request: Any = None
    #: Errors beside those that follow from the method, the address and the fields below.
    errors: tuple[int, ...] = ()
    parameters: tuple[Any, ...] = ()
    examples: tuple[OpenApiExample, ...] = ()
    #: Whether it looks at If-Match, or If-None-Match if it reads.
    is_conditional: bool = False
    has_etag: bool = False
    has_location: bool = False
    #: Whether it looks at Idempotency-Key.
    takes_key: bool = False


def _request_example(name: str, value: JsonObject) -> tuple[OpenApiExample, ...]:
    return (OpenApiExample(name, value=value, request_only=True),)


def _text_parameter(name: str, max_length: int, description: str = "") -> OpenApiParameter:
    schema = {"type": "string", "maxLength": max_length, "pattern": TEXT_PATTERN}
    return OpenApiParameter(name, schema, description=description)


_EVENT_ID: JsonObject = {"type": "string", "pattern": "^[0-9]{0,10}$"}
_HEALTH_STATE = {"type": "string", "enum": ["ok", "unavailable"]}
_CONTEXT: JsonObject = {
    "response": ContextObjectSerializer,
    "is_conditional": True,
    "has_etag": True,
}
_CONTEXT_WRITE: JsonObject = {
    **_CONTEXT,
    "request": ContextObjectSerializer,
    "errors": (409,),
    "examples": _request_example("A context", {"language": "python", "mode": "debug"}),
}
_NDJSON: dict[str, Any] = {"response": OpenApiTypes.STR, "media_type": "application/x-ndjson"}

_ONE_MESSAGE = {"role": "user", "content": "Help me debug this code"}
_TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
_SEVERAL_MESSAGES = [
    {"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [_TOOL_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "21 °C, sunny"},
]

OPERATIONS = {
    "SessionViewSet.list": Operation(
        id="listSessions",
        response=components.SessionPageSerializer,
        parameters=(
            PageQuerySerializer,
            _text_parameter("agent_id", 255),
            _text_parameter(
                "text", serializers.MAX_SEARCH_TERM, "Words in the title or in a message."
            ),
            OpenApiParameter(
                "active",
                OpenApiTypes.BOOL,
                description="Status active and not expired; or, with false, all others.",
            ),
        ),
    ),
    "SessionViewSet.create": Operation(
        id="createSession",
        response=serializers.SessionSerializer,
        statuses=(201,),
        request=serializers.NewSessionSerializer,
        takes_key=True,
        has_etag=True,
        has_location=True,
        examples=_request_example(
            "A session",
            {"agent_id": "code_agent", "title": "Debug a script", "metadata": {"team": "web"}},
        ),
    ),
    "SessionViewSet.retrieve": Operation(
        id="getSession",
        response=serializers.SessionSerializer,
        is_conditional=True,
        has_etag=True,
    ),
    "SessionViewSet.partial_update": Operation(
        id="changeSession",
        response=serializers.SessionSerializer,
        request=serializers.SessionChangeSerializer,
        errors=(409,),
        is_conditional=True,
        has_etag=True,
    ),
    "SessionViewSet.destroy": Operation(
        id="deleteSession",
        response=OpenApiResponse(description="The session is deleted."),
        statuses=(204,),
        errors=(409,),
        is_conditional=True,
    ),
    "SessionViewSet.context": Operation(id="getSessionContext", **_CONTEXT),
    "SessionViewSet.merge_context": Operation(id="mergeSessionContext", **_CONTEXT_WRITE),
    "SessionViewSet.replace_context": Operation(id="replaceSessionContext", **_CONTEXT_WRITE),
    "SessionViewSet.bulk_status": Operation(
        id="setSessionStatuses",
        response=components.BulkStatusResultSerializer,
        request=serializers.BulkStatusSerializer,
        errors=(404,),
    ),
    "SessionViewSet.stats": Operation(id="getSessionStats", response=serializers.StatsSerializer),
    "SessionViewSet.search": Operation(
        id="searchSessions",
        response=components.SearchResultSerializer,
        parameters=(serializers.SearchQuerySerializer,),
    ),
    "SessionViewSet.export_one": Operation(id="exportSession", **_NDJSON),
    "SessionViewSet.export_all": Operation(id="exportSessions", **_NDJSON),
    "SessionViewSet.cleanup": Operation(
        id="cleanUpSessions", response=components.CleanupResultSerializer
    ),
    "SessionViewSet.erase": Operation(
        id="eraseSessions",
        response=components.EraseResultSerializer,
        request=serializers.ConfirmSerializer,
        errors=(409,),
        examples=_request_example("Confirmed", {"confirm": True}),
    ),
    "SessionViewSet.messages": Operation(
        id="listMessages",
        response=components.MessageWindowPageSerializer,
        parameters=(serializers.MessageWindowSerializer,),
    ),
    "SessionViewSet.add_messages": Operation(
        id="addMessages",
        response=components.AppendResponseSerializer,
        statuses=(201,),
        request=components.AppendRequestSerializer,
        errors=(409,),
        takes_key=True,
        is_conditional=True,
        examples=(
            *_request_example("A message", _ONE_MESSAGE),
            *_request_example("Several messages, all or none", {"messages": _SEVERAL_MESSAGES}),
        ),
    ),
    "SessionViewSet.clear_messages": Operation(
        id="clearMessages",
        response=components.ClearResultSerializer,
        errors=(409,),
        is_conditional=True,
    ),
    "SessionViewSet.message": Operation(
        id="getMessage",
        response=components.StoredMessageSerializer,
        is_conditional=True,
        has_etag=True,
    ),
    "SessionViewSet.replace_message": Operation(
        id="replaceMessage",
        response=components.StoredMessageSerializer,
        request=components.ReplacingMessageSerializer,
        errors=(409,),
        is_conditional=True,
        has_etag=True,
        examples=_request_example("A corrected message", _ONE_MESSAGE),
    ),
    "SessionViewSet.delete_message": Operation(
        id="deleteMessage",
        response=OpenApiResponse(description="The message is deleted."),
        statuses=(204,),
        errors=(409,),
        is_conditional=True,
    ),
    "SessionViewSet.pop_message": Operation(
        id="popMessage",
        response=components.StoredMessageSerializer,
        empty=204,
        errors=(409,),
        is_conditional=True,
    ),
    "SessionViewSet.replace_tail": Operation(
        id="replaceMessagesTail",
        response=components.StoredMessagesSerializer,
        request=serializers.TailSerializer,
        errors=(409, 422),
        is_conditional=True,
        examples=_request_example(
            "Another answer",
            {
                "after": 1,
                "messages": [{"role": "assistant", "content": "Let me see."}],
                "expected_last": 2,
            },
        ),
    ),
    "SessionViewSet.changes": Operation(
        id="listMessageChanges",
        response=components.ChangesSerializer,
        parameters=(serializers.ChangesQuerySerializer,),
    ),
    "SessionViewSet.events": Operation(
        id="followMessages",
        response=components.ServerSentEventSerializer,
        media_type="text/event-stream",
        parameters=(
            OpenApiParameter(
                "Last-Event-ID",
                _EVENT_ID,
                OpenApiParameter.HEADER,
                description="The last id seen; browsers send it by themselves.",
            ),
            OpenApiParameter("after", _EVENT_ID, description="The same, as a parameter."),
        ),
    ),
    "CacheMetricsView.get": Operation(id="getCacheMetrics", response=ContextObjectSerializer),
    "HealthView.get": Operation(
        id="getHealth",
        response={
            "type": "object",
            "required": ["status"],
            "properties": {"status": _HEALTH_STATE, "database": _HEALTH_STATE, "cache": {}},
        },
        statuses=(200, 503),
    ),
}
