"""Strict JSON of bounded size and depth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import islice
from typing import IO, Any, NoReturn

from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from agent_sessions.api.renderers import AsciiJSONRenderer
from agent_sessions.conf import settings
from agent_sessions.message_format import MAX_DEPTH as MESSAGE_DEPTH
from agent_sessions.message_format import JsonObject

# A token is a string, the beginning of an object or array, or a comma between values.
_TOKEN = re.compile(rb'"[^"]*+"?|[\[{,]')

MAX_DEPTH = MESSAGE_DEPTH + 3
"""Levels of objects and arrays in a request: a message as deep as allowed, in a batch."""


class BodyTooLarge(APIException):
    """The request body has more bytes than AGENT_SESSIONS_MAX_REQUEST_BYTES."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = _("The request body is too large.")
    default_code = "body_too_large"


class LengthRequired(APIException):
    """The body comes in chunks, which Django does not read on every server."""

    status_code = status.HTTP_411_LENGTH_REQUIRED
    default_detail = _("Send the body with a Content-Length.")
    default_code = "length_required"


class EncodedBody(APIException):
    """The body is compressed."""

    status_code = status.HTTP_415_UNSUPPORTED_MEDIA_TYPE
    default_detail = _("Send the body without a Content-Encoding.")
    default_code = "unsupported_content_encoding"


class BoundedJSONParser(BaseParser):
    """Parses JSON, and refuses what databases or clients could not read.

    Refused are NaN and infinities (also `1e999`), more than AGENT_SESSIONS_MAX_REQUEST_ITEMS
    values, nesting beyond MAX_DEPTH, text that is not UTF-8, and an object that names a key twice,
    of which readers take different ones. A lone surrogate written as an escape is text like any
    other: each field decides whether to take it.
    """

    media_type = "application/json"
    renderer_class = AsciiJSONRenderer

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, object] | None = None,
    ) -> Any:
        """Return the decoded body. Raises BodyTooLarge (413) or ParseError (400)."""
        limit = settings.MAX_REQUEST_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge
        if _has_more_items(body, settings.MAX_REQUEST_ITEMS):
            raise ParseError(_("The JSON has too many values."))
        try:
            value = json.loads(
                body.decode("utf-8"),
                parse_constant=_refuse_constant,
                parse_float=_finite,
                object_pairs_hook=_object,
            )
        except RecursionError:
            raise ParseError(_("The JSON is nested too deeply.")) from None
        except ValueError as error:
            raise ParseError(_("JSON parse error: %s") % error) from None
        # No more brackets than levels allowed: no need to walk.
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
            raise ParseError(_("The JSON is nested too deeply."))
        return value


def refuse_unreadable_body(headers: Mapping[str, str]) -> None:
    """Raise LengthRequired or EncodedBody for a body that would be read as another or none."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        raise LengthRequired
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise EncodedBody


def _has_more_items(body: bytes, limit: int) -> bool:
    """Return whether the JSON has more strings, containers and values than *limit*.

    A value takes tens of bytes in memory where it takes two in the body, so they are counted
    before they are made.
    """
    if sum(map(body.count, (b'"', b"[", b"{", b","))) <= limit:
        return False
    # Without escapes each quotation mark begins or ends a string.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return next(islice(_TOKEN.finditer(plain), limit, None), None) is not None


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _depth in range(limit + 1):
        level = [
            child
            for container in level
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
