"""Bodies and fields of the schema that serializers cannot describe."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import Direction
from rest_framework import serializers

from agent_sessions.api.fields import AnySerializer
from agent_sessions.api.serializers import (
    MAX_BATCH_MESSAGES,
    UNDECRYPTABLE,
    FoundSessionSerializer,
    SessionSummarySerializer,
)
from agent_sessions.conf import settings
from agent_sessions.message_format import JsonObject, roles
from agent_sessions.models import SessionStatus
from agent_sessions.repository import ChangeKind

Schema = JsonObject

TEXT_PATTERN = "^[^\\x00]*$"

# A message must have another key than these if it has no content.
_KEYS_WITHOUT_CONTENT = ("role", "content", "metadata", "idempotency_key", "name", "tool_call_id")

# Valid in OpenAPI 3.0, too, where "null" is not a type.
_NULL: Schema = {"enum": [None]}
_OBJECT: Schema = {"type": "object", "additionalProperties": True}
_PART: Schema = {
    **_OBJECT,
    "anyOf": [{"required": ["type"], "minProperties": 2}, {"required": ["parts"]}],
}
_ACTIVITY: Schema = {**_OBJECT, "description": "The state of an activity."}
_KINDS: list[Schema] = [
    {"required": ["role"]},
    *(
        {"required": [key], "properties": {key: {"type": "string"}}}
        for key in ("type", "kind", "author")
    ),
]


class ProblemErrorSerializer(AnySerializer):
    """One thing wrong with the request: in the body (pointer) or in a parameter or header."""

    pointer = serializers.CharField(required=False, help_text="JSON Pointer into the body.")
    parameter = serializers.CharField(required=False)
    detail = serializers.CharField()
    code = serializers.CharField()


class ProblemSerializer(AnySerializer):
    """A problem document (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="For programs; it does not change with the language.")
    errors = ProblemErrorSerializer(many=True, required=False)  # type: ignore[assignment]


class SessionPageSerializer(AnySerializer):
    """A page of sessions; the totals are there with `page` only."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = SessionSummarySerializer(many=True)
    page = serializers.IntegerField(required=False)
    page_size = serializers.IntegerField(required=False)
    total_items = serializers.IntegerField(required=False)
    total_pages = serializers.IntegerField(required=False)
    has_next = serializers.BooleanField(required=False)
    has_previous = serializers.BooleanField(required=False)


class SearchResultSerializer(AnySerializer):
    """The sessions that search found, the best first."""

    results = FoundSessionSerializer(many=True)


class BulkStatusResultSerializer(AnySerializer):
    """How many sessions had another status."""

    updated = serializers.IntegerField()


class CleanupResultSerializer(AnySerializer):
    """How many sessions were completed."""

    completed = serializers.IntegerField()


class EraseResultSerializer(AnySerializer):
    """The report of an erasure."""

    sessions = serializers.IntegerField()
    messages = serializers.IntegerField()
    user = serializers.CharField(help_text="The key of the user.")
    tenant = serializers.CharField(allow_null=True, help_text="Null: every tenant.")
    by = serializers.CharField(help_text="Who asked for it.")
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField()
    deleted = serializers.DictField(
        child=serializers.IntegerField(), help_text="Rows that were deleted, by table."
    )
    redacted = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="Rows that stay without the texts they had, by table.",
    )


class ChatMessageSerializer(AnySerializer):
    """A message in the chat format of model providers."""


class StoredMessageSerializer(AnySerializer):
    """A message as it was given, and its place in the conversation."""

    sequence = serializers.IntegerField(min_value=1)
    created_at = serializers.DateTimeField()
    message = ChatMessageSerializer()
    problem = serializers.ChoiceField(
        [UNDECRYPTABLE],
        required=False,
        help_text="Only where the message cannot be decrypted, and `content` is null therefore.",
    )


class StoredMessagesSerializer(AnySerializer):
    """Messages that were appended together."""

    results = StoredMessageSerializer(many=True)


class MessageWindowPageSerializer(AnySerializer):
    """A window of messages, in order."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = StoredMessageSerializer(many=True)


class AppendRequestSerializer(AnySerializer):
    """A message, or messages under `messages`."""


class AppendResponseSerializer(AnySerializer):
    """The appended messages: a single one as it is, several under `results`."""


class ReplacingMessageSerializer(AnySerializer):
    """A message that takes the place of a stored one, and keeps its idempotency key."""


class ClearResultSerializer(AnySerializer):
    """How many messages were deleted."""

    deleted = serializers.IntegerField()


class ChangeSerializer(AnySerializer):
    """An append, a change or a deletion of a message."""

    number = serializers.IntegerField(min_value=0)
    type = serializers.ChoiceField([kind.value for kind in ChangeKind])
    sequence = serializers.IntegerField(min_value=0)
    message = StoredMessageSerializer(
        allow_null=True, help_text="The message as it is now; null where it was deleted."
    )


class ChangesSerializer(AnySerializer):
    """What happened to the messages of a session, in order."""

    last = serializers.IntegerField(help_text="Ask again with `after` = this number.")
    results = ChangeSerializer(many=True)


class ServerSentEventSerializer(AnySerializer):
    """One event of the stream."""

    id = serializers.CharField(help_text="The number of the append, change or deletion.")
    event = serializers.CharField(help_text="`message`, `message.updated` or `message.deleted`.")
    data = serializers.CharField(  # type: ignore[assignment]
        help_text="A StoredMessage as JSON, or the `sequence` of a deleted one."
    )


class ContextObjectSerializer(AnySerializer):
    """The context: any JSON object."""


class _ChatMessage(OpenApiSerializerExtension):
    target_class: type[AnySerializer] = ChatMessageSerializer
    takes_key = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        part = {"anyOf": [{"type": "string"}, {"type": "object"}]}
        contents: list[Schema] = [
            {"type": "string"},
            {"type": "array", "items": part},
            _PART,
        ]
        properties: Schema = {
            "role": {"type": "string", "enum": roles()},
            "content": {
                "anyOf": [*contents, _ACTIVITY, _NULL],
                "description": "Text, a part, or a list of parts. It may be null or missing only "
                "where another key, such as `tool_calls`, says what the message says, or where a "
                "provider's format has nothing to say.",
            },
            "metadata": {"type": "object"},
            "name": {},
            "tool_calls": {"description": "Any JSON; it comes back equal."},
            "tool_call_id": {},
        }
        if direction == "request" and self.takes_key:
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
            "was sent, whatever text is in it. Items of formats without a role have a `type`, "
            "`kind` or `author`.",
            "properties": properties,
            "additionalProperties": True,
            "allOf": [{"anyOf": _KINDS}, {"anyOf": _with_contents(contents)}],
        }


class _ReplacingMessage(_ChatMessage):
    target_class = ReplacingMessageSerializer
    takes_key = False


def _with_contents(contents: list[Schema]) -> list[Schema]:
    """Return the ways in which a message can say something, or nothing."""
    nothing = _exactly(None)
    tool: Schema = {"role": _exactly("tool", "function"), "content": nothing}
    text: Schema = {"type": "string"}
    return [
        {"required": ["content"], "properties": {"content": {"anyOf": contents}}},
        {
            "required": ["role", "content"],
            "properties": {"role": _exactly("activity"), "content": _ACTIVITY},
        },
        *(
            {
                "description": "A tool returned nothing.",
                "required": ["role", "content", key],
                "properties": {**tool, key: text},
            }
            for key in ("tool_call_id", "name")
        ),
        *(
            {
                "description": "The dump of an answer in which nothing was said.",
                "required": ["role", "content", key],
                "properties": {"role": _exactly("assistant"), "content": nothing},
            }
            for key in ("refusal", "function_call")
        ),
        {
            "description": "Some other key says something.",
            "properties": {"content": nothing},
            "not": {
                "properties": {key: {} for key in _KEYS_WITHOUT_CONTENT},
                "additionalProperties": _NULL,
            },
        },
    ]


def _exactly(*values: str | None) -> Schema:
    # drf-spectacular puts the enum of all roles in place of another enum of a role.
    return {"allOf": [{"enum": [*values]}]}


class _AppendRequest(OpenApiSerializerExtension):
    target_class = AppendRequestSerializer

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        message = auto_schema.resolve_serializer(ChatMessageSerializer, direction).ref
        messages = {
            "type": "array",
            "items": message,
            "minItems": 1,
            "maxItems": MAX_BATCH_MESSAGES,
        }
        batch = {
            "type": "object",
            "required": ["messages"],
            "properties": {"messages": messages},
            # With one of these it is a message that has a key of this name.
            "not": {"anyOf": [{"required": kind["required"]} for kind in _KINDS]},
        }
        return {"anyOf": [message, batch]}


class _Tail(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.TailSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        schema: Schema = auto_schema._map_basic_serializer(self.target, direction)
        message = auto_schema.resolve_serializer(ChatMessageSerializer, direction).ref
        schema["properties"]["messages"]["items"] = message
        return {**schema, "additionalProperties": False}


class _AppendResponse(OpenApiSerializerExtension):
    target_class = AppendResponseSerializer

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        answers = (StoredMessageSerializer, StoredMessagesSerializer)
        return {"oneOf": [auto_schema.resolve_serializer(each, direction).ref for each in answers]}


class _ContextObject(OpenApiSerializerExtension):
    target_class = ContextObjectSerializer

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        return _OBJECT


class _NewSession(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.NewSessionSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        schema = auto_schema._map_basic_serializer(self.target, direction)
        return {**schema, "additionalProperties": False}


class _SessionChange(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.SessionChangeSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        schema = auto_schema._map_basic_serializer(self.target, direction)
        return {**schema, "additionalProperties": False}


class _Confirm(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.ConfirmSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        confirm = {"type": "boolean", "not": {"enum": [False]}}
        return {
            "type": "object",
            "required": ["confirm"],
            "properties": {"confirm": confirm},
            "additionalProperties": False,
        }


class _BulkStatus(OpenApiSerializerExtension):
    target_class = "agent_sessions.api.serializers.BulkStatusSerializer"

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        schema = auto_schema._map_basic_serializer(self.target, direction)
        return {**schema, "additionalProperties": False}


class _Object(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.ObjectField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        return _OBJECT


class _PageSize(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.PageSizeField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        largest, default = settings.MAX_PAGE_SIZE, self.target.get_default()
        return {"type": "integer", "minimum": 1, "maximum": largest, "default": default}


class _Text(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.TextField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        schema = {"type": "string", "maxLength": self.target.max_length}
        if self.target.allow_blank:
            return {**schema, "not": {"pattern": "\\x00"}}
        # A text that must not be blank has a visible character.
        return {**schema, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"}


class _Status(OpenApiSerializerFieldExtension):
    target_class = "agent_sessions.api.fields.StatusField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> Schema:
        # A component of its own keeps its name when the host's schema has a status, too.
        component = ResolvedComponent(
            name="SessionStatus",
            type=ResolvedComponent.SCHEMA,
            schema={"type": "string", "enum": SessionStatus.values},
            object=SessionStatus,
        )
        auto_schema.registry.register_on_missing(component)
        reference: Schema = component.ref
        return reference
