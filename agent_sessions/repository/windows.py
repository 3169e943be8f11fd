"""Windows of messages: those before or behind a number, as many as a model can take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from django.db import connections
from django.utils.module_loading import import_string

from agent_sessions.conf import settings
from agent_sessions.message_format import JsonObject, text_of_message
from agent_sessions.models import Message, Session
from agent_sessions.repository.results import Window
from agent_sessions.repository.strategy import strategy_for
from agent_sessions.tool_calls import whole_from

# Messages in one query, where bytes or tokens decide how many are needed.
_AT_ONCE = 50
# In the estimate of tokens.
_BYTES_OF_A_TOKEN = 3
_TOKENS_OF_A_MESSAGE = 4


def read(wanted: Window, using: str) -> list[Message]:
    """Return messages in order. See SyncUserSessionRepository.get_messages()."""
    if not (wanted.whole_turns or wanted.is_measured):
        found = _rows(wanted, using)
        return found if wanted.follows else found[::-1]
    taken: list[Message] = []
    before: Message | None = None
    fits = _measure(wanted)
    for message in _in_turn(wanted, using):
        if len(taken) == wanted.limit or not fits(message):
            before = message
            break
        taken.append(message)
    if not wanted.follows:
        taken.reverse()
    return _without_cut(taken, None if wanted.follows else before) if wanted.whole_turns else taken


def estimate_tokens(message: JsonObject) -> int:
    """Estimate the tokens of a message: one for three bytes of its texts, and four more.

    English has about four bytes a token, so that a window is rather too small than too large.
    Images and files are not counted.
    """
    size = len(text_of_message(message).encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES_OF_A_TOKEN) + _TOKENS_OF_A_MESSAGE


def _rows(wanted: Window, using: str) -> list[Message]:
    found = strategy_for(using).window(wanted, connections[using])
    if found is None:
        raise Session.DoesNotExist(f"Session {wanted.session_id} does not exist.")
    return found


def _in_turn(wanted: Window, using: str) -> Iterator[Message]:
    """Read the messages and one more than wanted, in the order of the query, few at a time."""
    left = None if wanted.limit is None else wanted.limit + 1
    while True:
        count = left
        if wanted.is_measured:
            count = _AT_ONCE if left is None else min(left, _AT_ONCE)
        found = _rows(wanted._replace(limit=count), using)
        yield from found
        left = None if left is None else left - len(found)
        if count is None or len(found) < count or left == 0:
            return
        end = found[-1].sequence
        wanted = wanted._replace(after=end) if wanted.follows else wanted._replace(before=end)


def _measure(wanted: Window) -> Callable[[Message], bool]:
    """Return a function that tells of one message after the other whether it still fits."""
    count_tokens = _counter()
    size = tokens = 0

    def fits(message: Message) -> bool:
        nonlocal size, tokens
        if not wanted.is_measured:
            return True
        content = message.as_dict()
        if wanted.max_bytes is not None:
            size += bytes_of(content)
            if size > wanted.max_bytes:
                return False
        if wanted.max_tokens is not None:
            tokens += count_tokens(content)
            return tokens <= wanted.max_tokens
        return True

    return fits


def bytes_of(message: JsonObject) -> int:
    """Return the bytes of a message as JSON in UTF-8, without spaces."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))


def _counter() -> Callable[[JsonObject], int]:
    if settings.TOKEN_COUNTER is None:
        return estimate_tokens
    counter: Callable[[JsonObject], int] = import_string(settings.TOKEN_COUNTER)
    return counter


def _without_cut(messages: list[Message], before: Message | None) -> list[Message]:
    known = [*([] if before is None else [before]), *messages]
    return known[whole_from([message.as_dict() for message in known], before is not None) :]
