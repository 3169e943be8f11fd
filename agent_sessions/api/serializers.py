"""What goes in and what comes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils.timezone import is_aware
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from agent_sessions.api.fields import (
    CanonicalUUIDField,
    MomentField,
    ObjectField,
    StatusField,
    TextField,
)
from agent_sessions.api.pagination import PageSizeField
from agent_sessions.models import Message, Session

LARGEST_SEQUENCE = 2**31 - 1
MAX_BULK_IDS = 1_000
MAX_BATCH_MESSAGES = 1_000
MAX_SEARCH_TERM = 500


class SessionSummarySerializer(serializers.Serializer[Any]):
    """A session as lists show it: without messages and context.

    It reads requests and makes the schema. Answers are written by summarize_session(), in a
    tenth of the time.
    """

    id = serializers.UUIDField(read_only=True)
    agent_id = TextField(max_length=255)
    title = TextField(max_length=255, allow_blank=True, required=False)
    status = StatusField(required=False)
    metadata = ObjectField(required=False)
    message_count = serializers.IntegerField(read_only=True)
    created_at = MomentField(read_only=True)
    updated_at = MomentField(read_only=True)
    last_message_at = MomentField(read_only=True, allow_null=True)
    expires_at = MomentField(read_only=True, allow_null=True)


class SegmentSerializer(serializers.Serializer[Any]):
    """A run of characters of an excerpt: one of the words that were searched for, or not."""

    text = serializers.CharField(trim_whitespace=False)
    is_match = serializers.BooleanField()


class ExcerptSerializer(serializers.Serializer[Any]):
    """A piece of a message around what was found: plain text, in segments."""

    sequence = serializers.IntegerField(min_value=1)
    role = serializers.CharField()
    segments = SegmentSerializer(many=True)
    begins_inside = serializers.BooleanField(help_text="The message has text before the piece.")
    ends_inside = serializers.BooleanField(help_text="The message has text behind the piece.")


class FoundSessionSerializer(SessionSummarySerializer):
    """A session that was found, with pieces of the messages that match."""

    excerpts = ExcerptSerializer(many=True, read_only=True)


class SessionSerializer(SessionSummarySerializer):
    """A session with its context; its messages have their own address."""

    context = ObjectField(required=False)  # type: ignore[assignment]


class SessionChangeSerializer(serializers.Serializer[Any]):
    """What a client may change of a session. The context has its own address."""

    title = TextField(max_length=255, allow_blank=True, required=False)
    status = StatusField(required=False)
    metadata = ObjectField(required=False)


class BulkStatusSerializer(serializers.Serializer[Any]):
    """One status for many sessions."""

    session_ids = serializers.ListField(
        child=CanonicalUUIDField(), allow_empty=True, max_length=MAX_BULK_IDS
    )
    status = StatusField()


class ConfirmSerializer(serializers.Serializer[Any]):
    """A confirmation that cannot be given by accident."""

    confirm = serializers.BooleanField()

    def validate_confirm(self, value: bool) -> bool:
        """Return True."""
        if value is not True or self.initial_data["confirm"] is not True:
            raise serializers.ValidationError(_("Send true to confirm."))
        return value


class StatsSerializer(serializers.Serializer[Any]):
    """Counts over one user's sessions."""

    total_sessions = serializers.IntegerField()
    active_sessions = serializers.IntegerField()
    total_messages = serializers.IntegerField()
    avg_messages_per_session = serializers.FloatField()
    sessions_by_status = serializers.DictField(child=serializers.IntegerField())


class SequenceField(serializers.IntegerField):
    """A place in a conversation; 0 is before the first message."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=LARGEST_SEQUENCE, required=False, **kwargs)


class MessageWindowSerializer(serializers.Serializer[Any]):
    """Which messages of a session."""

    after = SequenceField()
    before = SequenceField()
    limit = PageSizeField()


class SearchQuerySerializer(serializers.Serializer[Any]):
    """What to search for."""

    q = TextField(max_length=MAX_SEARCH_TERM, allow_blank=True)
    limit = PageSizeField()


def summarize_session(session: Session) -> dict[str, Any]:
    """Return the session as SessionSummarySerializer describes it."""
    return {
        "id": str(session.pk),
        "agent_id": session.agent_id,
        "title": session.title,
        "status": session.status,
        "metadata": session.metadata,
        "message_count": session.message_count,
        "created_at": _moment(session.created_at),
        "updated_at": _moment(session.updated_at),
        "last_message_at": _moment(session.last_message_at),
        "expires_at": _moment(session.expires_at),
    }


def represent_session(session: Session) -> dict[str, Any]:
    """Return the session as SessionSerializer describes it."""
    return {**summarize_session(session), "context": session.context}


def represent_found(session: Session) -> dict[str, Any]:
    """Return the session as FoundSessionSerializer describes it."""
    return {
        **summarize_session(session),
        "excerpts": ExcerptSerializer(session.excerpts, many=True).data,
    }


def represent_message(message: Message) -> dict[str, Any]:
    """Return the message as it was given, under `message`, beside what the server says of it.

    A level of its own keeps every key of the message free for its author, and what a client
    hands on to a model provider needs no picking apart.
    """
    return {
        "sequence": message.sequence,
        "created_at": _moment(message.created_at),
        "message": message.as_dict(),
    }


def _moment(value: datetime | None) -> str | None:
    """Return the moment in UTC, whatever the time zone of the project."""
    if value is None:
        return None
    if is_aware(value):
        value = value.astimezone(UTC).replace(tzinfo=None)
    return f"{value.isoformat()}Z"
