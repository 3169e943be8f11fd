"""Conversations in the format of ShareGPT, which data sets for fine-tuning have."""

from __future__ import annotations

from agent_sessions.message_format import JsonObject
from agent_sessions.transfer.conversation import Conversation
from agent_sessions.transfer.formats.common import foreign_conversation, list_of, object_of, text_of

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "system": "system",
}
_USUAL = ("human", "gpt", "system", "tool")


def read_sharegpt(record: JsonObject) -> Conversation:
    """Return a conversation of a list of `from` and `value`.

    A `from` other than human, gpt, system and tool is kept in the message.

    Raises:
        ValidationError: It is no such conversation; keyed by place.
    """
    rest = dict(record)
    given = list_of(rest.pop("conversations"), "conversations")
    messages: list[object] = []
    if isinstance(rest.get("system"), str) and rest["system"]:
        messages.append({"role": "system", "content": rest.pop("system")})
    for place, turn in enumerate(given):
        messages.append(_message(dict(object_of(turn, f"conversations[{place}]")), place))
    # Ids such as `identity_0` are in many data sets: they are kept, and identify nothing.
    return foreign_conversation("sharegpt", messages, None, rest, 0)


def _message(turn: JsonObject, place: int) -> JsonObject:
    speaker = text_of(turn.pop("from", None), f"conversations[{place}].from")
    content = text_of(turn.pop("value", None), f"conversations[{place}].value")
    if speaker not in _USUAL:
        turn["from"] = speaker
    return {**turn, "role": _ROLES.get(speaker, speaker), "content": content}
