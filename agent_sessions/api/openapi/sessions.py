"""The operations on sessions."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiViewExtension,
)
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from agent_sessions.api import serializers as ours
from agent_sessions.api.openapi.components import TEXT, ContextObjectSerializer
from agent_sessions.api.openapi.operations import (
    ID,
    IF_MATCH,
    IF_NONE_MATCH,
    KEY,
    READ,
    USER,
    WRITE,
    copy_of,
    etag,
    operation,
    page_size_schema,
)
from agent_sessions.models import Session

LINES = (
    'A line a session in the chat fine-tuning format, `{"messages": […]}`, with title, agent_id, '
    "metadata, context and status where it has them. Streamed."
)


NEW_SESSION = OpenApiExample(
    "A session",
    value={"agent_id": "code_agent", "title": "Debug Python script", "metadata": {"team": "web"}},
    request_only=True,
)
CONTEXT = OpenApiExample("A context", value={"language": "python", "mode": "debug"})


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
                    "SearchResult", {"results": ours.FoundSessionSerializer(many=True)}
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
                description="Whole words before beginnings of words, those before other parts; "
                "then titles before messages; then the most recent. Each session carries pieces "
                "of up to three messages that match. Nothing is found for an empty term.",
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
                WRITE,
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
            )(copy_of(target.merge_context))

            replace_context = operation(
                "replaceSessionContext",
                "Replace the context",
                context[0],
                (*WRITE, 404, 409, 412),
                request=ContextObjectSerializer,
                parameters=[ID, USER, IF_MATCH, etag(200)],
                examples=[CONTEXT],
            )(copy_of(target.replace_context))

            def get_queryset(self) -> Any:
                return self.queryset

        return Documented
