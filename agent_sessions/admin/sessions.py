"""Sessions in the admin."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from agent_sessions.admin.audit import (
    VIEW_MESSAGE,
    VIEW_SESSION,
    may_read_messages,
    record,
)
from agent_sessions.admin.deletion import DeletingAdmin, in_batches, untitled
from agent_sessions.admin.display import (
    FormDecoder,
    PrettyEncoder,
    conversation,
    is_visible,
    pretty_json,
)
from agent_sessions.admin.encrypted import NotesAdmin
from agent_sessions.admin.listing import AgentFilter, CappedPaginator, ForgivingAdmin
from agent_sessions.exceptions import SessionArchived
from agent_sessions.models import Session, SessionStatus
from agent_sessions.ndjson import ndjson_response
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import CHANGEABLE, SyncSessionRepository
from agent_sessions.search.lookups import matches
from agent_sessions.search.terms import words_of
from agent_sessions.transfer import export_sessions

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Session]
    _ModelForm = forms.ModelForm[Session]
else:
    _ModelAdmin = admin.ModelAdmin
    _ModelForm = forms.ModelForm

_SEARCHED = 10_000
# Sessions that the audit log names when many are exported at once.
_NAMED = 100


class SessionForm(_ModelForm):
    """Validates a session as the repository does."""

    def clean(self) -> dict[str, object]:
        """Raise ValidationError for changes to an archived session that leave it archived."""
        values = super().clean() or {}
        archived = self.initial.get("status") == SessionStatus.ARCHIVED
        if archived and self.has_changed() and values.get("status") == SessionStatus.ARCHIVED:
            raise ValidationError(
                _("The session is archived. Choose another status to change it."), code="archived"
            )
        return values


@admin.register(Session)
class SessionAdmin(ForgivingAdmin, DeletingAdmin, NotesAdmin):
    """Lists, searches, completes, archives, exports and deletes sessions."""

    form = SessionForm
    list_display = [
        "name",
        "owner",
        "agent_id",
        "status",
        "message_count",
        "last_activity",
        "created",
    ]
    list_display_links = ["name"]
    list_filter = ["status", AgentFilter, "created_at", "expires_at"]
    list_select_related = ["user"]
    list_per_page = 50
    list_max_show_all = 200
    # Only the primary key, which is made of time, sorts millions of rows of all users at once.
    sortable_by = ["created"]
    ordering = ["-id"]
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    search_fields = ["title"]
    search_help_text = _(
        "Words, or parts of words, of the title or of a message; user:NAME for one user's "
        "sessions; or the id of a session."
    )
    change_list_template = "admin/agent_sessions/change_list.html"
    actions = ["complete", "archive", "export", "erase_users"]
    raw_id_fields = ["user"]
    save_as = False
    fieldsets = [
        (None, {"fields": ["title", "user", "agent_id", "status", "expires_at"]}),
        (_("Messages"), {"fields": ["conversation"]}),
        (_("Context and metadata"), {"fields": ["context", "metadata"]}),
        (
            _("Facts"),
            {
                "fields": [
                    "id",
                    "message_count",
                    "created_at",
                    "last_message_at",
                    "updated_at",
                    "idempotency_key",
                ]
            },
        ),
    ]
    readonly_fields = [
        "conversation",
        "id",
        "message_count",
        "created_at",
        "last_message_at",
        "updated_at",
        "idempotency_key",
    ]

    class Media:
        css = {"all": ["agent_sessions/admin.css"]}

    def has_read_messages_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may read and export messages."""
        return may_read_messages(request)

    # --- Listing --------------------------------------------------------------------------------

    @admin.display(description=_("session"))
    def name(self, session: Session) -> str:
        """Return the title, or the agent and the id if it is not visible."""
        return session.title if is_visible(session.title) else f"{session.agent_id} {session.pk}"

    @admin.display(description=_("user"))
    def owner(self, session: Session) -> str:
        """Return the user, as a link to the user's sessions."""
        address = reverse(f"{self.admin_site.name}:agent_sessions_session_changelist")
        query = urlencode({"user__exact": session.user_id})
        return format_html('<a href="{}?{}">{}</a>', address, query, session.user)

    @admin.display(description=_("last activity"))
    def last_activity(self, session: Session) -> str:
        """Return the time of the last message."""
        return _short(session.last_activity_at)

    @admin.display(description=_("created"), ordering="id")
    def created(self, session: Session) -> str:
        """Return the time of creation."""
        return _short(session.created_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Session]:
        """Return the sessions; for the list without the JSON, which it does not show."""
        sessions = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "agent_sessions_session_changelist":
            return sessions.defer("context", "metadata")
        return sessions

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, object] | None = None
    ) -> HttpResponse:
        """Return the list of sessions; a search in it is recorded as one."""
        response = super().changelist_view(request, extra_context)
        if hasattr(response, "context_data") and not request.GET.get(SEARCH_VAR, "").strip():
            record(request, f"lists sessions “{request.GET.urlencode()}”", VIEW_SESSION)
        return response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Session], search_term: str
    ) -> tuple[QuerySet[Session], bool]:
        """Return the sessions with all words of the term, of one user, or with one id."""
        sessions: Any = queryset
        words = search_term.split()
        reads_messages = may_read_messages(request)
        if words:
            permission = VIEW_MESSAGE if reads_messages else VIEW_SESSION
            record(request, f"searches sessions for “{search_term}”", permission)
        if len(words) == 1 and (session_id := _as_uuid(words[0])):
            return sessions.filter(pk=session_id), False
        if words and words[0].startswith("user:"):
            user_model = get_user_model()
            name = words.pop(0).removeprefix("user:")
            user = user_model._default_manager.filter(**{user_model.USERNAME_FIELD: name}).first()
            sessions = sessions.for_user(user) if user else sessions.none()
        if words and self.refuses_search(request):
            return sessions.none(), False
        if words and reads_messages:
            sessions = sessions.search(" ".join(words), newest=_SEARCHED)
        elif words:
            # Whether a session is found must not tell what its messages contain.
            sessions = sessions.filter(matches("title", words_of(" ".join(words))))
        return sessions, False

    # --- One session ----------------------------------------------------------------------------

    @admin.display(description=_("conversation"))
    def conversation(self, session: Session) -> str:
        """Return the last messages."""
        if session._state.adding:
            return "-"
        return conversation(session, self.admin_site.name)

    @admin.display(description=_("context"))
    def context_shown(self, session: Session) -> str:
        """Return the context for users who may not change it."""
        return pretty_json(session.context)

    @admin.display(description=_("metadata"))
    def metadata_shown(self, session: Session) -> str:
        """Return the metadata for users who may not change it."""
        return pretty_json(session.metadata)

    def get_fieldsets(self, request: HttpRequest, obj: Session | None = None) -> Any:
        """Return the fields: messages for users who may see them, JSON indented to be read."""
        fieldsets = [
            (title, options)
            for title, options in super().get_fieldsets(request, obj)
            if "conversation" not in options["fields"] or may_read_messages(request)
        ]
        if self.has_change_permission(request, obj) if obj else self.has_add_permission(request):
            return fieldsets
        shown: dict[Any, str] = {"context": "context_shown", "metadata": "metadata_shown"}
        return [
            (title, {**options, "fields": [shown.get(name, name) for name in options["fields"]]})
            for title, options in fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Session | None = None) -> Any:
        """Return the fields that are only shown; the user of a session stays."""
        fields = [*super().get_readonly_fields(request, obj), "context_shown", "metadata_shown"]
        return [*fields, "user"] if obj else fields

    def formfield_for_dbfield(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: object
    ) -> Any:
        """Return the form field; JSON is indented."""
        if isinstance(db_field, models.JSONField):
            kwargs["encoder"] = PrettyEncoder
            kwargs["decoder"] = FormDecoder
            kwargs["widget"] = forms.Textarea(attrs={"rows": 10, "cols": 80, "spellcheck": "false"})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: Session, form: forms.ModelForm[Session], change: bool
    ) -> None:
        """Write through the repository."""
        repository = SyncSessionRepository()
        if not change:
            repository.create(obj)
            return
        # The status first: it opens an archived session for the rest.
        changes = {name: getattr(obj, name) for name in CHANGEABLE if name in form.changed_data}
        closing = changes.get("status") == SessionStatus.ARCHIVED
        status = changes.pop("status") if closing else None
        if changes:
            repository.update_session(obj.pk, changes)
        if "context" in form.changed_data:
            repository.update_session_context(obj.pk, obj.context, replace=True)
        if status is not None:
            repository.update_session(obj.pk, {"status": status})

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, object] | None = None,
    ) -> Any:
        """Show the form; report what the repository refused, such as an archived session."""
        reads_messages = may_read_messages(request)
        context = {**(extra_context or {}), "may_read_messages": reads_messages}
        try:
            response = super().changeform_view(request, object_id, form_url, context)
            session = getattr(response, "context_data", {}).get("original")
            if session is not None:
                what = "session and last messages" if reads_messages else "session"
                record(
                    request,
                    f"reads {what} {session.pk} of user {session.user_id}",
                    VIEW_MESSAGE if reads_messages else VIEW_SESSION,
                )
            return response
        except (SessionArchived, ValidationError) as error:
            reasons = error.messages if isinstance(error, ValidationError) else [str(error)]
            self.message_user(request, " ".join(reasons), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    # --- Actions --------------------------------------------------------------------------------

    @admin.action(description=_("Complete selected sessions"), permissions=["change"])
    def complete(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        """Complete the sessions but for archived ones."""
        open_sessions = queryset.exclude(status=SessionStatus.ARCHIVED)
        self._set_status(request, open_sessions, SessionStatus.COMPLETED)

    @admin.action(description=_("Archive selected sessions"), permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        """Archive the sessions, which makes them read-only."""
        self._set_status(request, queryset, SessionStatus.ARCHIVED)

    def _set_status(
        self, request: HttpRequest, queryset: QuerySet[Session], status: SessionStatus
    ) -> None:
        changed = 0
        for batch in in_batches(queryset.exclude(status=status)):
            changed += SyncSessionRepository().bulk_update_session_status(
                [session.pk for session in batch], status
            )
            LogEntry.objects.log_actions(
                request.user.pk or "",
                [untitled(session) for session in batch],
                CHANGE,
                [{"changed": {"fields": [str(_("status"))]}}],
            )
        text = ngettext(
            "%(count)d session is now %(status)s.",
            "%(count)d sessions are now %(status)s.",
            changed,
        )
        values = {"count": changed, "status": status.label}
        self.message_user(request, text % values, messages.SUCCESS)

    @admin.action(
        description=_("Export selected sessions (JSON Lines)"),
        permissions=["read_messages"],
    )
    def export(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponseBase:
        """Download the sessions with their messages."""
        chosen = Session.objects.using(queryset.db).filter(
            pk__in=queryset.order_by().select_related(None).values("pk")
        )
        named = chosen.order_by("-id").values_list("pk", "user_id")[:_NAMED]
        what = ", ".join(f"{pk} of user {user_id}" for pk, user_id in named)
        number = chosen.count()
        if number > _NAMED:
            what += f" and {number - _NAMED} more of “{request.GET.urlencode()}”"
        return self._download(request, chosen, "sessions.jsonl", f"{number} sessions: {what}")

    def get_urls(self) -> list[URLPattern]:
        """Add the export of one session."""
        export = path(
            "<path:object_id>/export/",
            self.admin_site.admin_view(self.export_view),
            name="agent_sessions_session_export",
        )
        return [export, *super().get_urls()]

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Download one session with its messages."""
        session = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, session) or not may_read_messages(request):
            raise PermissionDenied
        if session is None:
            raise Http404
        chosen = Session.objects.using(session._state.db).filter(pk=session.pk)
        what = f"session {session.pk} of user {session.user_id}"
        return self._download(request, chosen, f"session-{session.pk}.jsonl", what)

    def _download(
        self, request: HttpRequest, sessions: SessionQuerySet[Session], filename: str, what: str
    ) -> HttpResponseBase:
        record(request, f"exports {what}", VIEW_MESSAGE)
        return ndjson_response(request, export_sessions(sessions), filename)


def _short(moment: datetime) -> str:
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return date_format(local, "SHORT_DATETIME_FORMAT")


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
