"""The texts of a message: what people read and search, wherever a provider's format has it.

The walk knows the keys of the chat formats of OpenAI (chat, Responses, Assistants), Anthropic,
Gemini, Vercel's AI SDK, MCP, AG-UI and of agent frameworks. Ids, types, signatures, addresses and
encoded files are no texts.
"""

from __future__ import annotations

from collections.abc import Mapping

# A string under these keys is a text; what else is under them is looked through.
_TEXTS = frozenset(
    {
        *("content", "text", "value", "parts", "title", "summary", "instructions", "transcript"),
        *("refusal", "thinking", "reasoning", "reasoning_content", "reasoningText", "thought"),
        *("output", "outputs", "result", "results", "response", "error", "logs", "code", "query"),
        *("queries", "filename"),
    }
)
# What is under these keys is looked through; a string is none of the message's texts.
_HOLDERS = frozenset(
    {
        *("message", "kwargs", "source", "resource", "document", "file", "audio", "action"),
        *("tool_calls", "function_call", "function", "custom", "toolInvocations"),
        *("toolInvocation", "functionCall", "functionResponse", "functionResponses"),
        *("executableCode", "codeExecutionResult", "executable_code", "code_execution_result"),
        *("function_response", "data"),
    }
)
# What a tool was called with, and what it returned, is data of the tool's own shape.
_DATA = frozenset({"arguments", "args", "input", "parameters", "rawInput"})
_RESULTS = frozenset({"output", "outputs", "result", "results", "response"})
_CALLS = frozenset({"function", "functionCall", "function_call", "custom", "toolInvocation"})
_NAMES = ("name", "toolName", "tool_name")
# In data: names of types and encoded files.
_NO_TEXTS = frozenset(
    {"type", "url", "uri", "image_url", "signature", "encrypted_content", "mimeType", "media_type"}
)
_PLAIN = frozenset({"role", "content", "metadata", "idempotency_key", "tool_call_id"})
_OWN = frozenset({"metadata", "idempotency_key"})


def text_of_message(message: Mapping[str, object]) -> str:
    """Return the readable, searchable text of a message.

    That is its content where that is a text and all there is. Otherwise the texts stand in lines,
    in the order of the message, and a call of a tool as its name and its arguments.
    """
    content = message.get("content")
    if isinstance(content, str) and message.keys() <= _PLAIN:
        return content
    found = _walk({key: value for key, value in message.items() if key not in _OWN})
    if isinstance(content, str):
        # Some formats have it again in parts.
        found = [content, *(text for text in found if text != content)]
    return "\n".join(found)


def _walk(message: object) -> list[str]:
    """Collect the texts in order, without recursion: a message may be nested deep."""
    found: list[str] = []
    # What is waiting: a value, whether a string there is a text, whether all strings in it are.
    waiting: list[tuple[object, bool, bool]] = [(message, False, False)]
    while waiting:
        value, is_text, is_data = waiting.pop()
        if isinstance(value, str):
            if is_text and value and not value.startswith("data:"):
                found.append(value)
        elif isinstance(value, list | tuple):
            waiting.extend((inner, is_text, is_data) for inner in reversed(value))
        elif isinstance(value, Mapping):
            inner_values = _of_data(value) if is_data else _of_object(value)
            waiting.extend(reversed(inner_values))
    return found


def _of_data(value: Mapping[str, object]) -> list[tuple[object, bool, bool]]:
    if isinstance(value.get("data"), str) and not _has_plain_data(value):
        value = {key: inner for key, inner in value.items() if key != "data"}
    return [(inner, True, True) for key, inner in value.items() if key not in _NO_TEXTS]


def _of_object(value: Mapping[str, object]) -> list[tuple[object, bool, bool]]:
    found: list[tuple[object, bool, bool]] = []
    if not _DATA.isdisjoint(value):
        found += [(name, True, False) for name in _names(value)]
    for key, inner in value.items():
        if key in _DATA:
            found.append((inner, True, True))
        elif key in _TEXTS:
            is_shapeless = isinstance(inner, Mapping) and (
                key in _RESULTS or (key == "content" and _is_shapeless(inner))
            )
            found.append((inner, True, is_shapeless))
        elif key in _HOLDERS:
            if key in _CALLS and isinstance(inner, Mapping) and _DATA.isdisjoint(inner):
                found += [(name, True, False) for name in _names(inner)]
            found.append((inner, key == "data" and _has_plain_data(value), False))
    return found


def _names(call: Mapping[str, object]) -> list[object]:
    """Return the name of the tool that is called."""
    names = [call[name] for name in _NAMES if name in call]
    kind = call.get("type")
    if not names and "toolCallId" in call and isinstance(kind, str):
        # A part of Vercel's has it in its type.
        names = [kind.removeprefix("tool-")]
    return names


def _is_shapeless(value: Mapping[str, object]) -> bool:
    """Tell whether an object has none of the keys that formats have texts under."""
    return value.keys().isdisjoint(_TEXTS | _HOLDERS | _DATA)


def _has_plain_data(value: Mapping[str, object]) -> bool:
    """Tell whether ``data`` is a text, not an encoded file."""
    kinds = (value.get("type"), value.get("media_type"), value.get("mimeType"))
    return any(isinstance(kind, str) and kind.partition("/")[0] == "text" for kind in kinds)
