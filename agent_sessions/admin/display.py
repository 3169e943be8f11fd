"""Renders conversations and JSON as HTML, escaped and of limited length."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from agent_sessions.admin.encrypted import excerpt_of, with_excerpt
from agent_sessions.message_format import clean_text, inspect_json, is_storable
from agent_sessions.models import Message, Session

LONGEST_EXCERPT = 2_000
LONGEST_TEXT = 200_000
PANEL_MESSAGES = 20


class PrettyEncoder(json.JSONEncoder):
    """Encodes JSON with an indent of two spaces."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "indent": 2})


class FormDecoder(json.JSONDecoder):
    """Decodes JSON; too deep or too long JSON is a JSONDecodeError, which forms report."""

    def decode(self, s: str, *args: Any, **options: Any) -> Any:
        """Return the value.

        Raises:
            JSONDecodeError: The text is not JSON, or its JSON is too deep or too long.
        """
        try:
            value = super().decode(s, *args, **options)
        except json.JSONDecodeError:
            raise
        except (RecursionError, ValueError) as error:
            raise json.JSONDecodeError(str(error), s[:100], 0) from None
        if problem := inspect_json(value).problem:
            raise json.JSONDecodeError(problem, s[:100], 0)
        return value


def is_visible(text: str) -> bool:
    """Return whether the text has a visible character, which a link needs."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def pretty_json(value: object) -> SafeString:
    """Return the value as indented JSON in a box."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # Escapes show characters that a page cannot hold.
    return _box(text if is_storable(text) else json.dumps(value, indent=2))


def text_box(text: str) -> SafeString:
    """Return the text in a box, with its line breaks."""
    return _box(clean_text(text))


def conversation(session: Session, site: str) -> str:
    """Return the session's last messages as HTML, with links into the admin site."""
    messages = Message.objects.using(session._state.db).for_session(session).latest_first()
    last = [
        {**row, "excerpt": excerpt, "cut": len(excerpt) > LONGEST_EXCERPT}
        for row in with_excerpt(messages, LONGEST_EXCERPT, LONGEST_TEXT).values(
            *("pk", "session_id", "sequence", "role", "created_at"),
            *("excerpt", "sealed", "sealed_length"),
        )[:PANEL_MESSAGES]
        for excerpt in [excerpt_of(row, LONGEST_EXCERPT)]
    ][::-1]
    return render_to_string(
        "admin/agent_sessions/conversation.html",
        {
            "session": session,
            "site": site,
            "messages": last,
            "hidden": max(0, session.message_count - len(last)),
        },
    )


def _box(text: str) -> SafeString:
    rest = len(text) - LONGEST_TEXT
    if rest > 0:
        more = gettext("… and %d characters more.") % rest
        return format_html(
            '<pre class="agent-sessions-json" dir="auto">{}</pre><p>{}</p>',
            text[:LONGEST_TEXT],
            more,
        )
    return format_html('<pre class="agent-sessions-json" dir="auto">{}</pre>', text)
