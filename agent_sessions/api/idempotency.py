"""The header Idempotency-Key: a retry gets the first answer again and changes nothing.

A database constraint decides: keys are unique within a session for its messages, and within a
user for their sessions. What they mean is the repository's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request

from agent_sessions.api.errors import InvalidParameter

HEADER = "Idempotency-Key"
MAX_LENGTH = 200
PATTERN = f"^[!-~]{{1,{MAX_LENGTH}}}$"

# No header's key has this character, so no two keys meet.
_OF_CALLER = "⇢"


def key_of_request(request: Request, owner_id: Any) -> str | None:
    """Return the key; None without the header. Raises InvalidParameter for a bad one.

    Keys belong to those who send them: staff who act for a user do not meet the user's keys.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not re.fullmatch(PATTERN[1:-1], key):
        raise InvalidParameter(
            {HEADER: [_("A key is 1 to %d visible ASCII characters.") % MAX_LENGTH]}
        )
    caller = request.user.pk
    return key if caller == owner_id else f"{caller}{_OF_CALLER}{key}"


def refuse_keys_in(messages: Iterable[Any]) -> None:
    """Raise InvalidParameter if a message brings a key of its own beside the header's."""
    if any(isinstance(message, Mapping) and "idempotency_key" in message for message in messages):
        raise InvalidParameter(
            {HEADER: [_("Give the header or idempotency_key in the messages, not both.")]}
        )
