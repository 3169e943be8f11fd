"""The accepted message dicts, and the way to store them so that they come back equal.

A row holds role, content and metadata in columns of their own, for people and for search.
What the columns cannot hold exactly goes, as ASCII JSON, into ``payload``: content that is
a list or None, strings with NUL or lone surrogates, numbers a database would round, and
every key this package does not know (``name``, ``tool_calls``, …).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from agent_sessions.choices import PROVIDER_ROLES, MessageRole
from agent_sessions.conf import settings
from agent_sessions.message_texts import text_of_message as text_of_message

#: What a JSON object is in Python.
JsonObject: TypeAlias = dict[str, Any]

#: Deepest nesting of lists and objects in a message, in a context and in metadata.
MAX_DEPTH = 500

_ROLES = (*MessageRole.values, *PROVIDER_ROLES)
_OWN_KEYS = frozenset({"role", "content", "metadata", "idempotency_key"})
_KEYS_THAT_CARRY_NOTHING = frozenset({"name", "tool_call_id"})
# Items of formats without roles have one of these keys.
_KEYS_OF_KIND = ("type", "kind", "author")
# Dumps of an answer have these keys, though nothing was said.
_KEYS_OF_DUMPS = frozenset({"refusal", "function_call"})
_USER_KINDS = frozenset({"request", "user", "human"})
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BASE64 = "b64:"
# In bits. Python refuses to write integers of more than 4300 digits.
_LONGEST_INTEGER = 13_288
_EXACT_INTEGERS = 2**63
# In bytes of JSON: an escaped character; a number, a constant or brackets with what separates them.
_LONGEST_CHARACTER = 6
_LONGEST_SMALL_ITEM = 32


def is_storable(text: str) -> bool:
    """Tell whether every database can hold the text as it is."""
    return _UNSTORABLE.search(text) is None


def clean_text(text: str) -> str:
    """Return the text with U+FFFD in place of characters that a database cannot hold."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def text_of(content: object) -> str:
    """Return the readable, searchable text of a message that has this content and nothing else."""
    return content if isinstance(content, str) else text_of_message({"content": content})


class JsonFacts(NamedTuple):
    """The result of ``inspect_json()`` for a value."""

    #: What keeps it from being JSON, if anything does.
    problem: str | None
    #: Whether every database can hold its texts.
    clean: bool
    #: Whether a JSON column gives it back equal on every database.
    exact: bool
    #: The bytes it has at most, written as JSON.
    size: int
    #: The bytes it has at least.
    least: int


def inspect_json(value: object) -> JsonFacts:
    """Inspect a JSON value, without recursion."""
    clean = exact = True
    size, least = _LONGEST_SMALL_ITEM, 0
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if item is None or isinstance(item, bool):
            continue
        if isinstance(item, str):
            size += _most_bytes(item)
            least += len(item)
            clean = clean and is_storable(item)
        elif isinstance(item, int):
            if item.bit_length() > _LONGEST_INTEGER:
                return _not_json(_("An integer has more than 4000 digits."))
            size += item.bit_length() // 3
            exact = exact and -_EXACT_INTEGERS <= item < _EXACT_INTEGERS
        elif isinstance(item, float):
            if not math.isfinite(item):
                return _not_json(_("NaN and infinity are not JSON."))
            written = repr(item)
            exact = exact and "e" not in written and written != "-0.0"
        elif depth >= MAX_DEPTH:
            return _not_json(_("It is nested deeper than %d levels.") % MAX_DEPTH)
        elif isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    return _not_json(_("The key %.100r is not a string.") % (key,))
                size += _most_bytes(key) + _LONGEST_SMALL_ITEM
                least += len(key)
                clean = clean and is_storable(key)
                waiting.append((inner, depth + 1))
        elif isinstance(item, list | tuple):
            size += len(item) * _LONGEST_SMALL_ITEM
            waiting.extend((inner, depth + 1) for inner in item)
        else:
            return _not_json(_("%s is not a JSON type.") % type(item).__name__)
    return JsonFacts(None, clean, clean and exact, size, least)


def _most_bytes(text: str) -> int:
    """Return how many bytes the text has at most, written as JSON."""
    return len(text) * _LONGEST_CHARACTER + _LONGEST_SMALL_ITEM


def _not_json(problem: object) -> JsonFacts:
    return JsonFacts(str(problem), clean=False, exact=False, size=0, least=0)


def validate_message(message: object) -> JsonObject:
    """Return the message as a new dict.

    Content is a string, a part, or a list of parts (strings and objects); it may be None or left
    out only where another key (``tool_calls``, ``refusal``, …) says what the message says, or where
    a provider's format has nothing to say. The role may be left out by items of formats that have a
    ``type``, ``kind`` or ``author`` instead: see ``role_of()``.

    Raises:
        ValidationError: A message of this form is not accepted; keyed by field.
    """
    if not isinstance(message, Mapping):
        raise ValidationError({"message": _("A message is a mapping of names to values.")})
    checked = dict(message)
    role = checked.get("role")
    errors: dict[str, object] = {}
    if "role" not in checked:
        if not any(isinstance(checked.get(key), str) for key in _KEYS_OF_KIND):
            errors["role"] = _("This field is required.")
    elif problem := role_problem(role):
        errors["role"] = problem
    if (wrong := _content_problem(checked)) is not None:
        errors["content"] = wrong
    metadata = checked.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        errors["metadata"] = _("Metadata is an object.")
    key = checked.get("idempotency_key")
    if key is not None and not is_idempotency_key(key):
        errors["idempotency_key"] = _("A key is a string of 1 to 255 printable characters.")
    sizes = []
    least = 0
    for name, value in checked.items():
        if not isinstance(name, str):
            errors["message"] = _("The key %.100r is not a string.") % (name,)
            continue
        sizes.append(_most_bytes(name))
        if isinstance(value, str):
            sizes.append(_most_bytes(value))
            least += len(value)
        elif name not in errors:
            facts = inspect_json(value)
            sizes.append(facts.size)
            least += facts.least
            if facts.problem:
                errors[name] = facts.problem
    # Few messages come near the limit: only those are measured.
    if not errors and sum(sizes) > settings.MAX_MESSAGE_BYTES:
        _refuse_too_large(checked, least)
    if errors:
        raise ValidationError(errors)
    return checked


def role_of(message: Mapping[str, object]) -> str:
    """Return the role of a checked message; of one without, who speaks by its kind."""
    if "role" in message:
        return str(message["role"])
    kind = next(str(message[key]) for key in _KEYS_OF_KIND if isinstance(message.get(key), str))
    if kind in _USER_KINDS:
        return MessageRole.USER.value
    is_result = kind.endswith(("_output", "_result"))
    return (MessageRole.TOOL if is_result else MessageRole.ASSISTANT).value


def role_problem(role: object) -> str | None:
    """Return the reason that a message cannot have the role, or None."""
    if isinstance(role, str) and (role in _ROLES or role in settings.EXTRA_ROLES):
        return None
    wrong = _("%(role).100r is not a role. Roles: %(allowed)s.")
    return wrong % {"role": role, "allowed": ", ".join(roles())}


def roles() -> list[str]:
    """Return the roles a message may have."""
    return [*_ROLES, *settings.EXTRA_ROLES]


def is_idempotency_key(value: object) -> bool:
    """Tell whether the value can serve as an idempotency key."""
    return isinstance(value, str) and 1 <= len(value) <= 255 and value.isprintable()


def storable_json(value: object) -> Any:
    """Return the JSON value, or the nearest one that a database column can hold."""
    return value if inspect_json(value).exact else _approximate(value)


def pack(message: Mapping[str, object], whole: bool = False) -> str | None:
    """Return the payload of a checked message: the parts that its columns cannot hold, or None.

    ``whole`` puts all of it into the payload.
    """
    kept: JsonObject = {}
    if "role" not in message:
        kept["roleless"] = True
    content = message.get("content")
    if "content" not in message:
        kept["absent"] = True
    elif (
        whole
        or not isinstance(content, str)
        or not is_storable(content)
        or text_of_message(message) != content
    ):
        kept["content"] = content
    if "metadata" in message:
        metadata = message["metadata"]
        if whole or not metadata or not inspect_json(metadata).exact:
            kept["metadata"] = metadata
    extra = {name: value for name, value in message.items() if name not in _OWN_KEYS}
    if extra:
        kept["extra"] = extra
    return packed(kept) if kept else None


def unpack(payload: str) -> JsonObject:
    """Return what ``pack()`` kept.

    That is under ``content``, ``metadata``, ``extra``, ``absent`` and ``roleless``.
    """
    if payload.startswith(_BASE64):
        raw = base64.b64decode(payload[len(_BASE64) :])
        payload = raw.decode("utf-8", "surrogatepass")
    kept: JsonObject = json.loads(payload)
    return kept


def canonical(value: object) -> str:
    """Return one text for equal JSON values, to compare two of them."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _approximate(value: object) -> Any:
    # Without recursion, like inspect_json: the stack of the caller may be deep already.
    top = [value]
    waiting: list[Any] = [top]
    while waiting:
        holder = waiting.pop()
        for place, item in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(item, str):
                holder[place] = clean_text(item)
            elif isinstance(item, dict):
                holder[place] = {clean_text(key): inner for key, inner in item.items()}
                waiting.append(holder[place])
            elif isinstance(item, list | tuple):
                holder[place] = list(item)
                waiting.append(holder[place])
            elif not inspect_json(item).exact:
                holder[place] = str(item)
    return top[0]


def packed(kept: JsonObject) -> str:
    """Return the text that ``unpack()`` reads."""
    text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    if text.isascii():
        return text
    if _SURROGATE_PAIR.search(text):
        # JSON's escapes would turn two surrogates in a row into one character.
        return _BASE64 + base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
    return json.dumps(kept, ensure_ascii=True, allow_nan=False)


def _content_problem(message: Mapping[str, object]) -> object:
    content = message.get("content")
    if isinstance(content, str):
        return None
    if content is None:
        if "content" in message and _may_be_empty(message):
            return None
        carriers = set(message) - _OWN_KEYS - _KEYS_THAT_CARRY_NOTHING
        if any(message[name] is not None for name in carriers):
            return None
        if "content" not in message:
            return _("This field is required.")
        return _("Content may be None only beside tool_calls or another key with contents.")
    if isinstance(content, dict):
        is_part = len(content) > 1 and "type" in content
        if is_part or "parts" in content or message.get("role") == "activity":
            return None
    if not isinstance(content, list | tuple):
        return _("Content is a string, a list of parts, or None beside tool_calls.")
    for number, part in enumerate(content):
        if not isinstance(part, str | dict):
            return _("Part %d of the content is neither a string nor an object.") % number
    return None


def _may_be_empty(message: Mapping[str, object]) -> bool:
    """Tell whether the message is a tool's that returned nothing, or the dump of an answer."""
    role = message.get("role")
    if role in (MessageRole.TOOL, "function"):
        return any(isinstance(message.get(key), str) for key in ("tool_call_id", "name"))
    return role == MessageRole.ASSISTANT and not _KEYS_OF_DUMPS.isdisjoint(message)


def _refuse_too_large(message: JsonObject, least: int) -> None:
    limit = settings.MAX_MESSAGE_BYTES
    problem = _("The message has %(size)d bytes; %(limit)d are allowed.")
    if least > limit:
        # Written, a text with one wide character takes many times the memory of the request.
        problem = _("The message has more than %(size)d bytes; %(limit)d are allowed.")
        raise ValidationError({"content": problem % {"size": least, "limit": limit}})
    try:
        written = json.dumps(message, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError({"content": _("It cannot be written as JSON: %s.") % error}) from None
    size = len(written.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise ValidationError({"content": problem % {"size": size, "limit": limit}})
