"""Request headers that make writing safe: Idempotency-Key, ETag, If-Match and If-None-Match."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from django.utils.http import parse_etags
from django.utils.translation import gettext_lazy as _
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from agent_sessions.api.errors import InvalidParameter, PreconditionFailed

IDEMPOTENCY_KEY = "Idempotency-Key"
KEY_PATTERN = "^[!-~]{1,200}$"

# A header holds ASCII only, so no client can send a key of another caller, or of an import.
_CALLER_SEPARATOR = "⇢"


def idempotency_key(request: Request) -> str | None:
    """Return the header's idempotency key, None without it.

    Unique constraints of the database decide which request was first.

    Raises:
        InvalidParameter: The key is not 1 to 200 visible ASCII characters.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not re.fullmatch(KEY_PATTERN[1:-1], key):
        raise InvalidParameter({IDEMPOTENCY_KEY: [_("Send 1 to 200 visible ASCII characters.")]})
    return key


def session_key(request: Request) -> str | None:
    """Return the header's idempotency key for a new session, None without it.

    The caller is a part of it, so that a key never equals one of another caller who acts for the
    same user.

    Raises:
        InvalidParameter: The key is not 1 to 200 visible ASCII characters.
    """
    key = idempotency_key(request)
    return None if key is None else f"{request.user.pk}{_CALLER_SEPARATOR}{key}"


def refuse_message_keys(messages: Iterable[object]) -> None:
    """Raise InvalidParameter if a message has an idempotency key beside the header's."""
    if any(isinstance(message, Mapping) and "idempotency_key" in message for message in messages):
        raise InvalidParameter(
            {IDEMPOTENCY_KEY: [_("Give the header or idempotency_key in the messages, not both.")]}
        )


def etag_of(representation: Mapping[str, object]) -> str:
    """Return the entity tag of a session's full representation."""
    text = json.dumps(representation, cls=JSONEncoder, sort_keys=True)
    return f'"{hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()}"'


def is_not_modified(request: Request, etag: str) -> bool:
    """Return whether If-None-Match names ``etag``: the client has this state already."""
    return _matches(request.headers.get("If-None-Match", ""), etag)


def require_match(request: Request, etag: str) -> None:
    """Raise PreconditionFailed if there is an If-Match header that does not name ``etag``."""
    header = request.headers.get("If-Match")
    if header is not None and not _matches(header, etag):
        raise PreconditionFailed


def _matches(header: str, etag: str) -> bool:
    # A proxy or GZipMiddleware that compresses the answer marks its tag as weak.
    tags = {tag.removeprefix("W/") for tag in parse_etags(header)}
    return "*" in tags or etag in tags
