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


def read(
    wanted: Window,
    using: str,
    *,
    whole_turns: bool = False,
    max_tokens: int | None = None,
    max_bytes: int | None = None,
) -> list[Message]:
    """Return messages in order. See SyncUserSessionRepository.get_messages()."""
    is_measured = max_tokens is not None or max_bytes is not None
    if not (whole_turns or is_measured):
        found = _rows(wanted, using)
        return found if wanted.follows else found[::-1]
    taken: list[Message] = []
    before: Message | None = None
    fits = _measure(max_tokens, max_bytes)
    for message in _in_turn(wanted, using, _AT_ONCE if is_measured else None):
        if len(taken) == wanted.limit or not fits(message):
            before = message
            break
        taken.append(message)
    if not wanted.follows:
        taken.reverse()
    return _without_cut(taken, None if wanted.follows else before) if whole_turns else taken


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


def _in_turn(wanted: Window, using: str, at_once: int | None) -> Iterator[Message]:
    """Read the messages and one more than wanted, in the order of the query.

    Each query reads at most ``at_once``, where that is given.
    """
    left = None if wanted.limit is None else wanted.limit + 1
    while True:
        counts = [count for count in (left, at_once) if count is not None]
        count = min(counts, default=None)
        found = _rows(wanted._replace(limit=count), using)
        yield from found
        left = None if left is None else left - len(found)
        if count is None or len(found) < count or left == 0:
            return
        end = found[-1].sequence
        wanted = wanted._replace(after=end) if wanted.follows else wanted._replace(before=end)


def _measure(max_tokens: int | None, max_bytes: int | None) -> Callable[[Message], bool]:
    """Return a function that tells of one message after the other whether it still fits."""
    measures: list[tuple[int, Callable[[JsonObject], int]]] = []
    if max_tokens is not None:
        measures.append((max_tokens, _counter()))
    if max_bytes is not None:
        measures.append((max_bytes, bytes_of))
    sums = [0] * len(measures)

    def fits(message: Message) -> bool:
        content = message.as_dict() if measures else {}
        for place, (_most, measure) in enumerate(measures):
            sums[place] += measure(content)
        return all(total <= most for total, (most, _measure) in zip(sums, measures, strict=True))

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
