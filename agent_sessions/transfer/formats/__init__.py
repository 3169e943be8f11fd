"""The formats of files: the project's own lines, and exports of other applications."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.message_format import JsonObject
from agent_sessions.transfer.conversation import Conversation, read_chat
from agent_sessions.transfer.formats.chatgpt import read_chatgpt
from agent_sessions.transfer.formats.claude import read_claude
from agent_sessions.transfer.formats.sharegpt import read_sharegpt

#: The format of each conversation is detected.
AUTO = "auto"

# By format: the key that shows it, and what reads it.
_READERS: Mapping[str, tuple[str, Callable[[JsonObject], Conversation]]] = MappingProxyType(
    {
        "chat": ("messages", read_chat),
        "chatgpt": ("mapping", read_chatgpt),
        "claude": ("chat_messages", read_claude),
        "sharegpt": ("conversations", read_sharegpt),
    }
)

#: The names of the formats.
FORMATS = (AUTO, *_READERS)


def read_conversation(record: JsonObject, name: str = AUTO) -> Conversation:
    """Return the conversation that a JSON object describes in the format of that name.

    Raises:
        ValidationError: It does not describe one; keyed by the place in the object.
    """
    if name == AUTO:
        known = (format_ for format_, (key, _reader) in _READERS.items() if key in record)
        name = next(known, "chat")
    key, read = _READERS[name]
    if name != "chat" and key not in record:
        raise ValidationError({key: _("This key is required.")})
    return read(record)
