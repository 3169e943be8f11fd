"""The serializers of requests and responses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from agent_sessions.api.fields import (
    LARGEST_SEQUENCE,
    AnySerializer,
    BoundedListField,
    CanonicalUUIDField,
    MomentField,
    ObjectField,
    PageSizeField,
    SequenceField,
    StatusField,
    TextField,
)
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Message, Session
from agent_sessions.moments import in_utc
from agent_sessions.repository import Change, Erased

#: The problem of a session or a message in a list that has a text that cannot be decrypted.
UNDECRYPTABLE = "decryption_failed"

MAX_BULK_IDS = 1_000
MAX_BATCH_MESSAGES = 1_000
MAX_SEARCH_TERM = 500


class SessionSummarySerializer(AnySerializer):
    """A session in lists: without messages and context.

    It reads requests and makes the schema; summarize_session() writes the same fields in a tenth
    of the time.
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
    problem = serializers.ChoiceField(
        [UNDECRYPTABLE],
        required=False,
        help_text="Only where a text cannot be decrypted, and is left empty.",
    )


class SegmentSerializer(AnySerializer):
    """A run of characters of an excerpt: a matching word, or the text between two."""

    text = serializers.CharField(trim_whitespace=False)
    is_match = serializers.BooleanField()


class ExcerptSerializer(AnySerializer):
    """A piece of a message around a match: plain text, in segments."""

    sequence = serializers.IntegerField(min_value=1)
    role = serializers.CharField()
    segments = SegmentSerializer(many=True)
    begins_inside = serializers.BooleanField(help_text="The message has text before the piece.")
    ends_inside = serializers.BooleanField(help_text="The message has text after the piece.")


class FoundSessionSerializer(SessionSummarySerializer):
    """A session that search found, with matching pieces of its messages."""

    excerpts = ExcerptSerializer(many=True, read_only=True)


class SessionSerializer(SessionSummarySerializer):
    """A session with its context; its messages have their own address."""

    context = ObjectField(required=False)  # type: ignore[assignment]
    problem = None  # type: ignore[assignment]


class _RefusesOthers(AnySerializer):
    """Refuses names that it does not take: a misspelt one must not look as if it were taken."""

    refusal: ClassVar[Any]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values.

        Raises:
            ValidationError: There are other names; keyed by name.
        """
        taken = {name for name, field in self.fields.items() if not field.read_only}
        others = [name for name in self.initial_data if name not in taken]
        if others:
            raise serializers.ValidationError({name: [self.refusal] for name in others})
        return attrs


class NewSessionSerializer(_RefusesOthers):
    """What a client says of a new session. Its user and tenant are those of the request."""

    refusal = _("This cannot be set here.")

    agent_id = TextField(max_length=255)
    title = TextField(max_length=255, allow_blank=True, required=False)
    status = StatusField(required=False)
    metadata = ObjectField(required=False)
    context = ObjectField(required=False)  # type: ignore[assignment]


class SessionChangeSerializer(_RefusesOthers):
    """The fields of a session that a client may change; the context has its own address."""

    refusal = _("This cannot be changed here.")

    title = TextField(max_length=255, allow_blank=True, required=False)
    status = StatusField(required=False)
    metadata = ObjectField(required=False)


class BulkStatusSerializer(_RefusesOthers):
    """One status for many sessions."""

    refusal = _("This cannot be set here.")

    session_ids = BoundedListField(
        child=CanonicalUUIDField(), allow_empty=True, max_length=MAX_BULK_IDS
    )
    status = StatusField()


class ConfirmSerializer(_RefusesOthers):
    """A confirmation that cannot be given by accident."""

    refusal = _("This cannot be chosen here.")

    confirm = serializers.BooleanField()

    def validate_confirm(self, value: bool) -> bool:
        """Return True."""
        if value is not True or self.initial_data["confirm"] is not True:
            raise serializers.ValidationError(_("Send true to confirm."))
        return value


class StatsSerializer(AnySerializer):
    """Counts over one user's sessions."""

    total_sessions = serializers.IntegerField()
    active_sessions = serializers.IntegerField()
    total_messages = serializers.IntegerField()
    avg_messages_per_session = serializers.FloatField()
    sessions_by_status = serializers.DictField(child=serializers.IntegerField())


class MessageWindowSerializer(AnySerializer):
    """The parameters of a window of messages."""

    after = SequenceField(help_text="Messages after this sequence.")
    before = SequenceField(help_text="Messages before this sequence.")
    limit = PageSizeField()


class ChangesQuerySerializer(AnySerializer):
    """The parameters of a list of changes."""

    after = SequenceField(help_text="Changes after this number; 0, the default, begins.")
    limit = PageSizeField()


class TailSerializer(_RefusesOthers):
    """The messages that take the place of those after a number."""

    refusal = _("This cannot be set here.")

    after = serializers.IntegerField(
        min_value=0, max_value=LARGEST_SEQUENCE, help_text="The last message that stays; 0: none."
    )
    messages = BoundedListField(
        child=ObjectField(), allow_empty=True, max_length=MAX_BATCH_MESSAGES
    )
    expected_last = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_SEQUENCE,
        required=False,
        help_text="The last message seen (0: none); any other last message answers 409.",
    )


class SearchQuerySerializer(AnySerializer):
    """The parameters of a search."""

    q = TextField(
        max_length=MAX_SEARCH_TERM,
        allow_blank=True,
        help_text="Words; each character stands for itself.",
    )
    limit = PageSizeField()


def _moment(value: datetime | None) -> str | None:
    if value is None:
        return None
    # Most are in UTC already, and a list has hundreds.
    moment = value if value.tzinfo is UTC else in_utc(value)
    return f"{moment.replace(tzinfo=None).isoformat()}Z"


_WRITERS: dict[type, Callable[[Any], object]] = {MomentField: _moment, serializers.UUIDField: str}
_SUMMARY = [
    (name, _WRITERS.get(type(field)))
    for name, field in SessionSummarySerializer().fields.items()
    if name != "problem"
]
_EMPTY: dict[str, object] = {"title": "", "metadata": {}}


def summarize_session(session: Session) -> JsonObject:
    """Return the session as SessionSummarySerializer describes it."""
    if session.is_undecryptable:
        return _summary_without_texts(session)
    return {
        name: write(getattr(session, name)) if write else getattr(session, name)
        for name, write in _SUMMARY
    }


def _summary_without_texts(session: Session) -> JsonObject:
    values = {name: session.readable(name, _EMPTY.get(name)) for name, _write in _SUMMARY}
    summary = {name: write(values[name]) if write else values[name] for name, write in _SUMMARY}
    return {**summary, "problem": UNDECRYPTABLE}


def represent_session(session: Session) -> JsonObject:
    """Return the session as SessionSerializer describes it.

    Raises:
        DecryptionFailed: A text of the session cannot be decrypted.
    """
    session.require_decrypted()
    return {**summarize_session(session), "context": session.context}


def represent_found(session: Session) -> JsonObject:
    """Return the session as FoundSessionSerializer describes it."""
    excerpts = ExcerptSerializer(session.excerpts, many=True).data
    return {**summarize_session(session), "excerpts": excerpts}


def represent_erased(erased: Erased) -> JsonObject:
    """Return the report of an erasure."""
    return {
        "sessions": erased.sessions,
        "messages": erased.messages,
        "user": erased.user,
        "tenant": erased.tenant,
        "by": erased.by,
        "started_at": _moment(erased.started_at),
        "finished_at": _moment(erased.finished_at),
        "deleted": erased.deleted,
        "redacted": erased.redacted,
    }


def represent_change(change: Change) -> JsonObject:
    """Return the change with its number, its type and the message as it is now."""
    return {
        "number": change.number,
        "type": change.kind.value,
        "sequence": change.sequence,
        "message": None if change.message is None else represent_message(change.message),
    }


def represent_message(message: Message) -> JsonObject:
    """Return the message as it was given, under `message`, with its sequence and time.

    Under a key of its own every key of the message is free for its author, and a client passes
    it to a model provider as it is. One that cannot be decrypted has its role, and a ``problem``.
    """
    represented: JsonObject = {
        "sequence": message.sequence,
        "created_at": _moment(message.created_at),
    }
    if message.is_undecryptable:
        nothing = {"role": message.role, "content": None}
        return {**represented, "message": nothing, "problem": UNDECRYPTABLE}
    represented["message"] = message.as_dict()
    return represented
