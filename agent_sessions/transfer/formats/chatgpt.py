"""Conversations as ChatGPT exports them: a tree of messages, of which one branch is current."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.message_format import JsonObject
from agent_sessions.models import SessionStatus
from agent_sessions.transfer.conversation import Conversation
from agent_sessions.transfer.dates import read_past_seconds
from agent_sessions.transfer.formats.common import (
    current_branch,
    foreign_conversation,
    known,
    object_of,
    present,
    text_or_none,
)

_TEXT_TYPES = ("text", "multimodal_text")


def read_chatgpt(record: JsonObject) -> Conversation:
    """Return the current branch of a conversation of ChatGPT's `conversations.json`.

    What has no place in the message format is kept under the keys of the source: `id`, `recipient`,
    `status`, …

    Raises:
        ValidationError: It is no such conversation; keyed by place.
    """
    rest = dict(record)
    nodes = {
        key: object_of(node, f"mapping[{key}]")
        for key, node in object_of(rest.pop("mapping"), "mapping").items()
    }
    parents = {key: text_or_none(node.get("parent")) for key, node in nodes.items()}
    path, others = current_branch(parents, rest.pop("current_node", None), "mapping")
    messages: list[object] = []
    times = []
    for key in path:
        place = f"mapping[{key}].message"
        if nodes[key].get("message") is None:
            continue
        message = present(object_of(nodes[key]["message"], place))
        times.append(read_past_seconds(message.pop("create_time", None), f"{place}.create_time"))
        messages.append(_message(message, place))
    source_id = text_or_none(rest.pop("conversation_id", None)) or text_or_none(rest.get("id"))
    if rest.get("id") == source_id:
        rest.pop("id", None)
    created = read_past_seconds(rest.pop("create_time", None), "create_time")
    updated = read_past_seconds(rest.pop("update_time", None), "update_time")
    conversation = foreign_conversation("chatgpt", messages, source_id, rest, others)
    conversation.message_times = times
    conversation.times = {**known("created_at", created), **known("updated_at", updated)}
    if rest.get("is_archived") is True:
        conversation.fields["status"] = SessionStatus.ARCHIVED
    return conversation


def _message(message: JsonObject, place: str) -> JsonObject:
    author = present(object_of(message.pop("author", None), f"{place}.author"))
    content = message.pop("content", None)
    read: JsonObject = {"role": author.pop("role", None), "content": _content(content, place)}
    if isinstance(author.get("name"), str):
        read["name"] = author.pop("name")
    if isinstance(message.get("metadata"), dict):
        read["metadata"] = message.pop("metadata")
    if author:
        read["author"] = author
    return {**message, **read}


def _content(content: object, place: str) -> object:
    """Return the content: a text, or parts as they are. Anything but text is one part."""
    if content is None:
        return ""
    given = present(object_of(content, f"{place}.content"))
    kind = given.pop("content_type", None)
    parts = given.get("parts")
    if kind in _TEXT_TYPES and not given:
        return ""
    if kind not in _TEXT_TYPES or not isinstance(parts, list) or len(given) > 1:
        return [{"type": kind, **given}]
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    if any(not isinstance(part, str | dict) for part in parts):
        raise ValidationError({f"{place}.content.parts": _("A part is a text or an object.")})
    return parts
