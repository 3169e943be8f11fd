"""A conversation that was read from a file, before it becomes a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.message_format import JsonObject
from agent_sessions.models import Session, SessionStatus
from agent_sessions.moments import as_stored
from agent_sessions.repository import History
from agent_sessions.transfer.dates import read_moment, read_past
from agent_sessions.transfer.lines import EXTRA_KEY

#: Keys of a line with times of the past.
TIMES = ("created_at", "updated_at", "last_message_at", "last_activity_at")

#: Keys of a line that mean something here.
OWN_KEYS = frozenset(
    {
        *("id", "messages", "title", "agent_id", "agent", "metadata", "context", "status"),
        *TIMES,
        *("expires_at", "message_times", "message_numbers", "last_sequence"),
        "undecryptable",
    }
)


@dataclass(slots=True)
class Conversation:
    """The messages of a conversation, and the other fields of its session.

    Without any time it is a conversation of now. With one it is as old as it says, and it
    never expires unless it says when.
    """

    messages: list[object]
    #: Further fields of the session, such as `title` and `status`.
    fields: JsonObject
    id: UUID | None = None
    #: What identifies the conversation in another application; the session's id follows it.
    source_id: str = ""
    #: Those of `TIMES` that are known.
    times: dict[str, datetime] = field(default_factory=dict)
    message_times: list[datetime | None] | None = None
    message_numbers: list[int] | None = None
    last_sequence: int = 0
    branches_left_out: int = 0

    @property
    def created_at(self) -> datetime | None:
        """The time at which the conversation began; None if no time is known."""
        if "created_at" in self.times:
            return self.times["created_at"]
        known = [moment for moment in self.message_times or () if moment is not None]
        return min([*known, *self.times.values()], default=None)

    @property
    def highest_number(self) -> int:
        """The highest number that a message has, or had."""
        numbers = self.message_numbers
        highest = numbers[-1] if numbers else len(self.messages)
        return max(highest, self.last_sequence)

    def as_session(self, **fields: object) -> tuple[Session, History | None]:
        """Return the session with these further fields, and its history if it has one."""
        fields = {**self.fields, **fields}
        began = self.created_at
        if began is None and self.message_numbers is None and not self.last_sequence:
            return Session(**fields), None
        if began is not None:
            fields.setdefault("expires_at", None)
        created = began or datetime.now(UTC)
        messages = self._filled_times(created)
        last_message = self.times.get("last_message_at") or max(messages, default=None)
        activity = self.times.get("last_activity_at") or max(created, last_message or created)
        changed = self.times.get("updated_at") or activity
        session = Session(
            created_at=as_stored(created),
            last_message_at=None if last_message is None else as_stored(last_message),
            last_activity_at=as_stored(activity),
            **fields,
        )
        history = History(
            message_times=[as_stored(moment) for moment in messages],
            message_numbers=self.message_numbers,
            last_sequence=self.last_sequence,
            updated_at=as_stored(changed),
        )
        return session, history

    def _filled_times(self, created: datetime) -> list[datetime]:
        """Return a time for each message: an unknown one is that of the message before."""
        if self.message_times is None:
            return [created] * len(self.messages)
        filled: list[datetime] = []
        for moment in self.message_times:
            filled.append(moment or (filled[-1] if filled else created))
        return filled


def read_chat(line: JsonObject) -> Conversation:
    """Return the conversation of a line of an export, or of the chat fine-tuning format.

    Raises:
        ValidationError: The line is not acceptable; keyed by the place in it.
    """
    rest = dict(line)
    if rest.pop("undecryptable", None):
        problem = _("It was exported without texts that could not be decrypted.")
        raise ValidationError({"undecryptable": problem})
    messages = rest.pop("messages", None)
    if not isinstance(messages, list):
        raise ValidationError({"messages": _("This list is required.")})
    status = rest.pop("status", SessionStatus.ACTIVE)
    if status not in SessionStatus.values:
        raise ValidationError({"status": _("%.100r is not a status.") % (status,)})
    conversation = Conversation(messages, {"status": status})
    fields = conversation.fields
    agent = rest.pop("agent", None)
    agent_id = rest.pop("agent_id", None) or agent
    for name, value, kind in (
        ("title", rest.pop("title", None), str),
        ("agent_id", agent_id, str),
        ("metadata", rest.pop("metadata", None), dict),
        ("context", rest.pop("context", None), dict),
    ):
        if value is None:
            continue
        if not isinstance(value, kind):
            raise ValidationError(
                {name: _("This is not an object.") if kind is dict else _("This is not a string.")}
            )
        fields[name] = value
    conversation.id = uuid_of(rest.get("id"))
    if conversation.id is not None:
        del rest["id"]
    _read_times(rest, conversation)
    keep_extra(conversation, rest)
    return conversation


def keep_extra(conversation: Conversation, extra: JsonObject) -> None:
    """Keep unknown keys in the metadata, from which an export restores them."""
    if extra:
        metadata = conversation.fields.get("metadata", {})
        before = metadata.get(EXTRA_KEY)
        kept = {**before, **extra} if isinstance(before, dict) else extra
        conversation.fields["metadata"] = {**metadata, EXTRA_KEY: kept}


def uuid_of(value: object) -> UUID | None:
    """Return the UUID in a text; None for any other value."""
    if not isinstance(value, str) or len(value) != 36:
        return None
    try:
        return UUID(value)
    except ValueError:
        return None


def _read_times(rest: JsonObject, conversation: Conversation) -> None:
    for name in TIMES:
        moment = read_past(rest.pop(name, None), name)
        if moment is not None:
            conversation.times[name] = moment
    if "expires_at" in rest:
        expires = read_moment(rest.pop("expires_at"), "expires_at")
        conversation.fields["expires_at"] = None if expires is None else as_stored(expires)
    times = _one_for_each(rest.pop("message_times", None), "message_times", conversation)
    if times is not None:
        conversation.message_times = [
            read_past(moment, f"message_times[{place}]") for place, moment in enumerate(times)
        ]
    numbers = _one_for_each(rest.pop("message_numbers", None), "message_numbers", conversation)
    if numbers is not None:
        conversation.message_numbers = [
            _whole(number, f"message_numbers[{place}]") for place, number in enumerate(numbers)
        ]
    conversation.last_sequence = _whole(rest.pop("last_sequence", 0), "last_sequence")


def _one_for_each(value: object, name: str, conversation: Conversation) -> list[object] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValidationError({name: _("This is not a list.")})
    if len(value) != len(conversation.messages):
        raise ValidationError(
            {
                name: _("There are %(given)d for %(messages)d messages.")
                % {"given": len(value), "messages": len(conversation.messages)}
            }
        )
    return value


def _whole(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValidationError({place: _("%.60r is not a whole number.") % (value,)})
    return value
