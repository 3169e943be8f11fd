"""Shows encrypted texts in the admin, and notes in place of those that cannot be decrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Case, F, QuerySet, TextField, Value, When
from django.db.models.functions import Left, Length
from django.http import HttpRequest
from django.utils.translation import gettext

from agent_sessions import encryption
from agent_sessions.encryption import OnFailure, when_undecryptable
from agent_sessions.message_format import clean_text
from agent_sessions.models import Message

if TYPE_CHECKING:
    _AnyAdmin = admin.ModelAdmin[Any]
else:
    _AnyAdmin = admin.ModelAdmin


class NotesAdmin(_AnyAdmin):
    """Shows a note in place of what cannot be decrypted, which cannot be changed then.

    Pages are rendered here, because what is loaded for them while they are rendered may be
    encrypted, too.
    """

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the list."""
        with when_undecryptable(OnFailure.NOTE):
            return _rendered(super().changelist_view(request, *args, **kwargs))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the form."""
        with when_undecryptable(OnFailure.NOTE):
            return _rendered(super().changeform_view(request, *args, **kwargs))

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the question whether to delete, or delete."""
        with when_undecryptable(OnFailure.NOTE):
            return _rendered(super().delete_view(request, *args, **kwargs))

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the history."""
        with when_undecryptable(OnFailure.NOTE):
            return _rendered(super().history_view(request, *args, **kwargs))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False for what cannot be decrypted: a note must not be stored."""
        if getattr(obj, "is_undecryptable", False):
            return False
        return super().has_change_permission(request, obj)

    def refuses_search(self, request: HttpRequest) -> bool:
        """Return whether texts cannot be searched, and tell so."""
        if not encryption.is_on():
            return False
        text = gettext("Search is off because texts are encrypted.")
        if text not in (str(message) for message in messages.get_messages(request)):
            messages.warning(request, text)
        return True


def _rendered(response: Any) -> Any:
    if callable(getattr(response, "render", None)):
        response.render()
    return response


def with_excerpt(rows: QuerySet[Message], length: int, longest: int) -> QuerySet[Message]:
    """Annotate the beginning of each text as `excerpt`, with one character more if there is more.

    An encrypted message has its payload as `sealed` instead, if it has at most ``longest``
    characters.
    """
    begins_sealed = When(content="", payload__startswith=encryption.MARK, then=Length("payload"))
    return rows.annotate(
        excerpt=Left("content", length + 1),
        sealed_length=Case(begins_sealed, default=Value(0)),
        sealed=Case(
            When(sealed_length__range=(1, longest), then=F("payload")),
            default=None,
            output_field=TextField(null=True),
        ),
    )


def excerpt_of(row: Any, length: int) -> str:
    """Return the beginning of the text of a row of ``with_excerpt()``."""
    if row["sealed"] is None:
        if row["sealed_length"]:
            return gettext("(a long text: open the message)")
        excerpt: str = row["excerpt"]
        return excerpt
    with when_undecryptable(OnFailure.NOTE):
        message = Message.from_db(
            None,
            ["id", "session_id", "role", "content", "metadata", "payload"],
            [row["pk"], row["session_id"], row["role"], "", {}, row["sealed"]],
        )
    return clean_text(message.text[: length + 1])
