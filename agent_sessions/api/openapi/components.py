"""The components of the schema: what bodies look like."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import (
    Direction,
)
from rest_framework import serializers

from agent_sessions.api import serializers as ours
from agent_sessions.conf import settings
from agent_sessions.models import MessageRole, SessionStatus

TEXT = "^[^\\x00]*$"


# What a message cannot consist of without content.
SILENT_KEYS = ("role", "content", "metadata", "idempotency_key", "name", "tool_call_id")


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


class ServerSentEventSerializer(serializers.Serializer[Any]):
    """One event of the stream; `data` is a stored message as JSON."""

    id = serializers.CharField(help_text="The sequence of the message.")
    event = serializers.CharField(help_text="Always `message`.")
    data = serializers.CharField(help_text="A StoredMessage as JSON.")  # type: ignore[assignment]


class ContextObjectSerializer(serializers.Serializer[Any]):
    """The context: any JSON object."""


class _ChatMessage(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.components.ChatMessageSerializer"

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
    target_class = "agent_sessions.api.openapi.components.AppendRequestSerializer"

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
    target_class = "agent_sessions.api.openapi.components.AppendResponseSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        answers = (StoredMessageSerializer, StoredMessagesSerializer)
        return {"oneOf": [auto_schema.resolve_serializer(each, direction).ref for each in answers]}


class _ContextObject(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.openapi.components.ContextObjectSerializer"

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
