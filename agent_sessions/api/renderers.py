"""How answers are written."""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer


class AsciiJSONRenderer(JSONRenderer):
    """JSON in ASCII: a lone surrogate, which UTF-8 cannot carry, leaves as an escape."""

    ensure_ascii = True


class NDJSONRenderer(AsciiJSONRenderer):
    """Named by views that stream JSON Lines themselves; renders their errors."""

    media_type = "application/x-ndjson"
    format = "ndjson"


class EventStreamRenderer(AsciiJSONRenderer):
    """Named by the view that streams server-sent events; renders its errors."""

    media_type = "text/event-stream"
    format = "events"


class ReadOnlyBrowsableRenderer(BrowsableAPIRenderer):
    """The browsable API without its forms; the OpenAPI page is the place to try writes.

    Forms would render whatever is stored (any text, any depth) into HTML inputs, and the filter
    form needs a template of an app the host may not have installed.
    """

    def show_form_for_method(self, view: Any, method: str, request: Any, obj: Any) -> bool:
        """No forms."""
        return False

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """Only what needs no input: the buttons for DELETE and OPTIONS."""
        return None

    def get_filter_form(self, data: Any, view: Any, request: Any) -> Any:
        """No filter form."""
        return None

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """No raw form."""
        return None
