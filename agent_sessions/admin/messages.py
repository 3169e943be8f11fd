"""Messages in the admin, which can be read and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from agent_sessions.admin.audit import DELETE_MESSAGE, VIEW_MESSAGE, record
from agent_sessions.admin.display import pretty_json, text_box
from agent_sessions.admin.encrypted import NotesAdmin, excerpt_of, with_excerpt
from agent_sessions.admin.listing import ForgivingAdmin, LongPaginator
from agent_sessions.choices import MessageRole
from agent_sessions.message_format import roles
from agent_sessions.models import Message

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Message]
else:
    _ModelAdmin = admin.ModelAdmin

_EXCERPT = 160
_LONGEST_SEALED = 20_000


_LABELS = dict(MessageRole.choices)


class RoleFilter(admin.SimpleListFilter):
    """Filters by role, among the known ones."""

    title = _("role")
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, Any]]:
        """Return the known roles."""
        return [(role, _LABELS.get(role, role)) for role in roles()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Message]) -> QuerySet[Message]:
        """Return the messages of the role."""
        role = self.value()
        return queryset.filter(role=role) if role in roles() else queryset


@admin.register(Message)
class MessageAdmin(ForgivingAdmin, NotesAdmin, _ModelAdmin):
    """Lists the messages of one session, or of all, in order, and shows one in full."""

    list_display = ["number", "role", "excerpt", "created_at"]
    list_display_links = ["number", "excerpt"]
    list_filter = [RoleFilter]
    search_fields = ["content"]
    search_help_text = _("Words, or parts of words, of the text.")
    sortable_by: ClassVar[tuple[str, ...]] = ()
    ordering = ["session_id", "sequence"]
    paginator = LongPaginator
    list_per_page = 100
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    change_list_template = "admin/agent_sessions/change_list.html"
    actions = None
    fields = readonly_fields = ("session_link", "sequence", "role", "text", "exact", "created_at")

    class Media:
        css = {"all": ["agent_sessions/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: the repository appends."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Message | None = None) -> bool:
        """Return False: messages are not changed."""
        return False

    def delete_model(self, request: HttpRequest, obj: Message) -> None:
        """Delete the message; the counters of its session follow."""
        what = f"deletes message {obj.sequence} of session {obj.session_id}"
        super().delete_model(request, obj)
        record(request, what, DELETE_MESSAGE)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, object] | None = None,
    ) -> Any:
        """Show the message."""
        response = super().change_view(request, object_id, form_url, extra_context)
        message = getattr(response, "context_data", {}).get("original")
        if message is not None:
            what = f"reads message {message.sequence} of session {message.session_id}"
            record(request, what, VIEW_MESSAGE)
        return response

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, object] | None = None
    ) -> HttpResponse:
        """Return the list of messages."""
        response = super().changelist_view(request, extra_context)
        if hasattr(response, "context_data"):
            record(request, f"lists messages “{request.GET.urlencode()}”", VIEW_MESSAGE)
        return response

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns; with the session where the messages are not all of one."""
        if any(name.startswith("session__id") for name in request.GET):
            return self.list_display
        return ["session_link", *self.list_display]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        """Return the messages; for the list only the beginning of each content is loaded."""
        messages = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "agent_sessions_message_changelist":
            rows = messages.defer("content", "metadata", "payload")
            messages = with_excerpt(rows, _EXCERPT, _LONGEST_SEALED)
        # Of the session its title is shown.
        hidden = ("session__context", "session__metadata")
        return messages.select_related("session").defer(*hidden)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        """Return the messages with all words of the term."""
        term = search_term.strip()
        match = request.resolver_match
        if match is None or match.url_name != "agent_sessions_message_changelist":
            # The list is recorded whole; this is the autocompletion of another admin.
            record(request, f"searches messages for “{term}”", VIEW_MESSAGE)
        if term and self.refuses_search(request):
            return queryset.none(), False
        return (queryset.containing(term) if term else queryset), False  # type: ignore[attr-defined]

    @admin.display(description=_("sequence"))
    def number(self, message: Message) -> int:
        """Return the number in the session."""
        return message.sequence

    @admin.display(description=_("content"))
    def excerpt(self, message: Message) -> str:
        """Return the beginning of the text."""
        text = excerpt_of({**vars(message), "pk": message.pk}, _EXCERPT)
        return Truncator(text).chars(_EXCERPT) or "-"

    @admin.display(description=_("session"))
    def session_link(self, message: Message) -> str:
        """Return a link to the session."""
        address = reverse(
            f"{self.admin_site.name}:agent_sessions_session_change", args=[message.session_id]
        )
        return format_html('<a href="{}">{}</a>', address, message.session)

    @admin.display(description=_("text"))
    def text(self, message: Message) -> str:
        """Return the readable text."""
        return text_box(message.text)

    @admin.display(description=_("as it was given"))
    def exact(self, message: Message) -> str:
        """Return the message as its dict."""
        return pretty_json(message.as_dict())
