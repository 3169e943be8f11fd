"""ETag, If-None-Match and If-Match of a session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.utils.http import parse_etags
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from agent_sessions.api.errors import PreconditionFailed


def etag_of(representation: Mapping[str, Any]) -> str:
    """Return the tag of a session's full representation: it changes with every byte of it."""
    text = json.dumps(representation, cls=JSONEncoder, sort_keys=True)
    return f'"{hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()}"'


def is_known(request: Request, etag: str) -> bool:
    """Tell whether the client says that it has this state (If-None-Match)."""
    return _names(request.headers.get("If-None-Match"), etag)


def demand_match(request: Request, etag: str) -> None:
    """Raise PreconditionFailed if the client expects another state (If-Match)."""
    header = request.headers.get("If-Match")
    if header is not None and not _names(header, etag):
        raise PreconditionFailed


def _names(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    # A proxy or GZipMiddleware that compresses the answer marks its tag as weak.
    named = {tag.removeprefix("W/") for tag in parse_etags(header)}
    return "*" in named or etag in named
