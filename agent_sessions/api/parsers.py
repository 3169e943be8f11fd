"""Strict JSON of bounded size and depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from agent_sessions.api.renderers import AsciiJSONRenderer
from agent_sessions.conf import settings
from agent_sessions.strict_json import RefusedJSON, parse_json


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
    """Parses JSON, and refuses JSON that databases or clients could not read.

    Refused are NaN and infinities (also `1e999`), more than AGENT_SESSIONS_MAX_REQUEST_ITEMS
    values, nesting beyond the limit, text that is not UTF-8, and an object that names a key twice,
    because readers choose different values. A lone surrogate written as an escape is text like any
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
        """Return the decoded body.

        Raises:
            BodyTooLarge: The body has more bytes than AGENT_SESSIONS_MAX_REQUEST_BYTES (413).
            ParseError: The body is not the JSON that this parser accepts (400).
        """
        limit = settings.MAX_REQUEST_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge
        try:
            return parse_json(body, settings.MAX_REQUEST_ITEMS)
        except RefusedJSON as error:
            raise ParseError(str(error)) from None
        except ValueError as error:
            raise ParseError(_("JSON parse error: %s") % error) from None


def refuse_unreadable_body(headers: Mapping[str, str]) -> None:
    """Raise LengthRequired or EncodedBody for a body that a server might misread or ignore."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        raise LengthRequired
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise EncodedBody
