"""Calls of tools and their results, wherever a provider's format has them.

The formats of OpenAI (chat, Responses), Anthropic, Gemini, the AI SDK, AG-UI, Pydantic AI, ADK and
LangChain are known. A model's API refuses a history that has a result without its call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

# What holds parts of a message.
_HOLDERS = (
    *("content", "parts", "message", "data", "kwargs"),
    *("tool_calls", "toolCalls", "function_call", "functionCall"),
    *("function_response", "functionResponse"),
)
# An object under these keys is a call or a result, known by its id, or else by the tool's name.
_CALLS = frozenset({"tool_calls", "toolCalls", "function_call", "functionCall"})
_RESULTS = frozenset({"function_response", "functionResponse"})
# Types of calls and of results, with the key of the id that both have.
_CALL_TYPES = {
    "tool_use": "id",
    "server_tool_use": "id",
    "mcp_tool_use": "id",
    "tool-call": "toolCallId",
    "tool-approval-request": "approvalId",
    "mcp_approval_request": "id",
}
_RESULT_TYPES = {
    "tool-result": "toolCallId",
    "tool-approval-response": "approvalId",
    "mcp_approval_response": "approval_request_id",
}
_RETURNS = frozenset({"tool-return", "builtin-tool-return", "retry-prompt"})


def whole_from(messages: Sequence[Mapping[str, object]], start: int = 0) -> int:
    """Return how many messages to leave out, so that the rest has the call of each result.

    A result belongs to the last call before it that has its id, or the name of its tool where the
    format has no ids. Reasoning stays with the item that follows it.

    Args:
        messages: The messages in order.
        start: How many of them are left out at least.
    """
    called: dict[str, int] = {}
    follows_reasoning = False
    for number, message in enumerate(messages):
        is_cut = follows_reasoning and number == start > 0
        found = list(_links(message))
        called.update((key, number) for is_call, key in found if is_call)
        for is_call, key in found:
            is_cut = is_cut or (not is_call and called.get(key, -1) < start)
        if is_cut:
            start = number + 1
        follows_reasoning = message.get("type") == "reasoning"
    return start


def _links(message: Mapping[str, object]) -> Iterator[tuple[bool, str]]:
    """Yield whether it is a call, and its id, for each call and result in a message."""
    if message.get("role") == "function" and isinstance(name := message.get("name"), str):
        yield False, name
    # The key under which it stands, and a value.
    waiting: list[tuple[str, object]] = [("", message)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting.extend((place, item) for item in value)
        elif isinstance(value, Mapping):
            link = _link(place, value)
            if link is not None:
                yield link
            waiting.extend((key, value[key]) for key in _HOLDERS if key in value)


def _link(place: str, part: Mapping[str, object]) -> tuple[bool, str] | None:
    kind = part.get("type")
    kind = kind if isinstance(kind, str) else ""
    key: object
    if place in _CALLS or place in _RESULTS:
        is_call, key = place in _CALLS, part.get("id") or part.get("name")
    elif kind in _CALL_TYPES:
        is_call, key = True, part.get(_CALL_TYPES[kind])
    elif kind in _RESULT_TYPES:
        is_call, key = False, part.get(_RESULT_TYPES[kind])
    elif "tool_use_id" in part:
        is_call, key = False, part["tool_use_id"]
    elif "call_id" in part:
        is_call, key = not kind.endswith("_output"), part["call_id"]
    elif "tool_call_id" in part:
        part_kind = part.get("part_kind", "tool-return")
        # A list or an object has no hash.
        returns = isinstance(part_kind, str) and part_kind in _RETURNS
        is_call, key = not returns, part["tool_call_id"]
    elif part.get("role") == "tool":
        is_call, key = False, part.get("toolCallId")
    else:
        return None
    return (is_call, key) if isinstance(key, str) else None
