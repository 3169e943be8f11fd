"""The operations on messages, and those for who runs the service."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiViewExtension,
)
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)

from agent_sessions.api import serializers as ours
from agent_sessions.api.errors import PROBLEM_TYPE
from agent_sessions.api.openapi.components import (
    AppendRequestSerializer,
    AppendResponseSerializer,
    ContextObjectSerializer,
    MessageWindowPageSerializer,
    ProblemSerializer,
    ServerSentEventSerializer,
)
from agent_sessions.api.openapi.operations import (
    ERRORS,
    ID,
    KEY,
    READ,
    USER,
    WRITE,
    operation,
    page_size_schema,
    requiring_body,
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
                ServerSentEventSerializer,
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
    target_class = "agent_sessions.api.monitoring.CacheMetricsView"

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
    target_class = "agent_sessions.api.monitoring.HealthView"

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
