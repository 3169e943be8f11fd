"""The renderers of responses."""

from __future__ import annotations

from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer


class AsciiJSONRenderer(JSONRenderer):
    """Writes JSON in ASCII, so that a lone surrogate, which UTF-8 lacks, is an escape."""

    ensure_ascii = True


class NDJSONRenderer(AsciiJSONRenderer):
    """Names the format of views that stream JSON Lines, and renders their errors."""

    media_type = "application/x-ndjson"
    format = "ndjson"


class EventStreamRenderer(AsciiJSONRenderer):
    """Names the format of the view that streams events, and renders its errors."""

    media_type = "text/event-stream"
    format = "events"


class ReadOnlyBrowsableRenderer(BrowsableAPIRenderer):
    """Shows the browsable API without its forms; the OpenAPI page has forms.

    Forms would render stored JSON (of any text and depth) into HTML inputs, and the filter form
    needs a template of an app that the project may not have installed.
    """

    def get_rendered_html_form(
        self, data: object, view: object, method: str, request: object
    ) -> None:
        """Return None: no form."""

    def get_filter_form(self, data: object, view: object, request: object) -> None:
        """Return None: no filter form."""

    def get_raw_data_form(self, data: object, view: object, method: str, request: object) -> None:
        """Return None: no raw form."""
