"""Conversations as Claude exports them: `chat_messages` with texts or blocks."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.message_format import JsonObject
from agent_sessions.transfer.conversation import Conversation
from agent_sessions.transfer.dates import read_past
from agent_sessions.transfer.formats.common import (
    current_branch,
    foreign_conversation,
    known,
    list_of,
    object_of,
    present,
    text_or_none,
)

_ROLES = {"human": "user"}


def read_claude(record: JsonObject) -> Conversation:
    """Return a conversation of Claude's `conversations.json`.

    Where it names the last message of the current branch, the other branches are left out.
    Attachments, files and what else has no place in the message format are kept under the keys of
    the source.

    Raises:
        ValidationError: It is no such conversation; keyed by place.
    """
    rest = dict(record)
    given = [
        present(object_of(message, f"chat_messages[{place}]"))
        for place, message in enumerate(list_of(rest.pop("chat_messages"), "chat_messages"))
    ]
    places: Sequence[int] = range(len(given))
    leaf = text_or_none(rest.pop("current_leaf_message_uuid", None))
    others = 0
    if leaf is not None:
        by_id = {text_or_none(message.get("uuid")) or "": message for message in given}
        place_of = dict(zip(by_id, places, strict=False))
        if len(by_id) < len(given):
            raise ValidationError({"chat_messages": _("Two messages have one id, or none.")})
        parents = {key: _parent(message, by_id) for key, message in by_id.items()}
        path, others = current_branch(parents, leaf, "chat_messages")
        given = [by_id[key] for key in path]
        # Errors name the place in the file, not in the branch.
        places = [place_of[key] for key in path]
    messages: list[object] = []
    times = []
    for place, message in zip(places, given, strict=True):
        key = f"chat_messages[{place}].created_at"
        times.append(read_past(message.pop("created_at", None), key))
        messages.append(_message(message))
    source_id = text_or_none(rest.pop("uuid", None))
    rest["title"] = rest.pop("name", None)
    created = read_past(rest.pop("created_at", None), "created_at")
    updated = read_past(rest.pop("updated_at", None), "updated_at")
    conversation = foreign_conversation("claude", messages, source_id, rest, others)
    conversation.message_times = times
    conversation.times = {**known("created_at", created), **known("updated_at", updated)}
    return conversation


def _parent(message: JsonObject, known: dict[str, JsonObject]) -> str | None:
    # The parent of the first message is no message.
    parent = text_or_none(message.get("parent_message_uuid"))
    return parent if parent in known else None


def _message(message: JsonObject) -> JsonObject:
    sender = message.pop("sender", None)
    role = _ROLES.get(sender, sender) if isinstance(sender, str) else sender
    text = message.pop("text", "")
    blocks = message.pop("content", None)
    if not blocks:
        return {**message, "role": role, "content": text}
    if (
        isinstance(blocks, list)
        and len(blocks) == 1
        and present(blocks[0])
        == {
            "type": "text",
            "text": text,
        }
    ):
        return {**message, "role": role, "content": text}
    if isinstance(blocks, list) and text and text != _text_of(blocks):
        message["text"] = text
    return {**message, "role": role, "content": blocks}


def _text_of(blocks: list[object]) -> str:
    texts = [block.get("text") for block in blocks if isinstance(block, dict)]
    return "".join(text for text in texts if isinstance(text, str))
