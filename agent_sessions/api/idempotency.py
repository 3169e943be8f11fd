"""The header Idempotency-Key: a retry gets the first answer again and changes nothing.

A database constraint decides: keys are unique within a session for its messages, and within a
user for their sessions. The messages of one request share its key; the second and later ones
carry a number behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request

from agent_sessions.api.problems import InvalidParameter, KeyReused
from agent_sessions.models import Message, Session

HEADER = "Idempotency-Key"
MAX_LENGTH = 200
PATTERN = f"^[!-~]{{1,{MAX_LENGTH}}}$"

# No header's key has this character, so no two keys meet.
_SEPARATOR = "→"


def key_of_request(request: Request) -> str | None:
    """Return the key; None without the header. Raises InvalidParameter for a bad one."""
    key = request.headers.get(HEADER)
    if key is not None and not re.fullmatch(PATTERN[1:-1], key):
        raise InvalidParameter(
            {HEADER: [_("A key is 1 to %d visible ASCII characters.") % MAX_LENGTH]}
        )
    return key


def keyed(messages: Sequence[Any], key: str) -> list[Any]:
    """Return the messages of one request, each with its own key.

    What is no object stays what it is: the repository says what is wrong with it. Raises
    InvalidParameter if a message brings a key of its own.
    """
    if any(isinstance(message, Mapping) and "idempotency_key" in message for message in messages):
        raise InvalidParameter(
            {HEADER: [_("Give the header or idempotency_key in the messages, not both.")]}
        )
    return [
        {**message, "idempotency_key": _numbered(key, number)}
        if isinstance(message, Mapping)
        else message
        for number, message in enumerate(messages)
    ]


def verify_batch(session: Session, messages: Sequence[Any], key: str) -> None:
    """Raise KeyReused if the key came with more or with fewer messages before.

    That their contents are the same is the repository's to compare.
    """
    keys = [_numbered(key, number) for number in range(len(messages) + 1)]
    known = set(
        Message.objects.using(session._state.db)
        .filter(session=session, idempotency_key__in=keys)
        .values_list("idempotency_key", flat=True)
    )
    if known and known != set(keys[:-1]):
        raise KeyReused


def _numbered(key: str, number: int) -> str:
    return f"{key}{_SEPARATOR}{number}" if number else key
