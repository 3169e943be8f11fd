"""The models Session and Message: fields, constraints, indexes and methods of one row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.db.models import Q
from django.db.models.base import ModelBase
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from agent_sessions import encryption, message_format
from agent_sessions.choices import (
    FINISHED_STATUSES,
    OPEN_STATUSES,
    MessageRole,
    SessionStatus,
)
from agent_sessions.conf import settings
from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.fields import (
    ContentField,
    ExactEncoder,
    MetadataField,
    PayloadField,
    SealedTitleField,
    SessionObjectField,
    TitleField,
)
from agent_sessions.ids import uuid7
from agent_sessions.loading import BOUND, EXACT, ExactlyLoaded, RemembersLoaded, snapshot
from agent_sessions.message_format import JsonObject
from agent_sessions.message_numbers import (
    PLACE,
    VISIBLE,
    locked_places,
    note_change,
    number_new,
    refuse_moving,
)
from agent_sessions.querysets import MessageManager, SessionQuerySet
from agent_sessions.search.excerpts import Excerpt
from agent_sessions.validators import (
    validate_moment,
    validate_object,
    validate_role,
    validate_text,
)

__all__ = ["Message", "MessageRole", "Session", "SessionStatus"]


def default_expiry(now: datetime | None = None) -> datetime | None:
    """Return the time at which a session without further messages expires; None for never."""
    hours = settings.EXPIRY_HOURS
    return None if hours is None else (now or timezone.now()) + timedelta(hours=hours)


class Session(RemembersLoaded):
    """One conversation of a user with an agent.

    ``save()`` writes the fields that were changed since the session was loaded. ``message_count``,
    ``last_sequence``, ``last_change`` and the times of the last append belong to the repository:
    saving never writes them. ``last_sequence`` is the last number that was given out, to a message
    or to a change of one, ``last_change`` the last one of a change.

    A subclass may add fields. The repository returns plain sessions: ``TeamSession.objects`` has
    the whole rows.
    """

    # The repository updates them with the messages, under the lock of the row.
    COUNTERS = frozenset(
        {"message_count", "last_sequence", "last_change", "last_message_at", "last_activity_at"}
    )

    #: What search found in the messages, on the sessions that it returns.
    excerpts: Sequence[Excerpt] = ()

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="agent_sessions",
        # The indexes below begin with the user.
        db_index=False,
    )
    tenant = models.CharField(
        _("tenant"), max_length=255, blank=True, default="", validators=[validate_text]
    )
    agent_id = models.CharField(_("agent"), max_length=255, validators=[validate_text])
    title = TitleField(
        _("title"), max_length=255, blank=True, default="", validators=[validate_text]
    )
    sealed_title = SealedTitleField(null=True, editable=False)
    status = models.CharField(
        _("status"), max_length=16, choices=SessionStatus.choices, default=SessionStatus.ACTIVE
    )
    context = SessionObjectField(_("context"), default=dict, blank=True, encoder=ExactEncoder)
    metadata = SessionObjectField(_("metadata"), default=dict, blank=True, encoder=ExactEncoder)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)
    last_message_at = models.DateTimeField(_("last message"), null=True, editable=False)
    last_activity_at = models.DateTimeField(
        _("last activity"), default=timezone.now, editable=False
    )
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True, default=default_expiry)
    message_count = models.PositiveIntegerField(_("messages"), default=0, editable=False)
    last_sequence = models.PositiveIntegerField(_("last sequence"), default=0, editable=False)
    last_change = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    idempotency_key = models.CharField(  # noqa: DJ001  (no key is no value, for the constraint)
        _("idempotency key"), max_length=255, null=True, blank=True, editable=False
    )
    idempotency_digest = models.CharField(max_length=64, default="", editable=False)

    objects = models.Manager.from_queryset(SessionQuerySet)()

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "tenant", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="agent_session_idempotency",
            ),
        ]
        indexes = [
            models.Index(
                fields=["user", "tenant", "-last_activity_at", "-id"],
                name="agent_session_activity",
            ),
            # For lists of one status, and for the statistics of a user, which read the index only.
            models.Index(
                fields=[
                    "user",
                    "tenant",
                    "status",
                    "-last_activity_at",
                    "-id",
                    "expires_at",
                    "message_count",
                ],
                name="agent_session_numbers",
            ),
            models.Index(fields=["user", "tenant", "-id"], name="agent_session_creation"),
            models.Index(
                fields=["tenant", "-id"], condition=~Q(tenant=""), name="agent_session_tenant"
            ),
            models.Index(
                fields=["expires_at"],
                condition=Q(status__in=OPEN_STATUSES),
                name="agent_session_expiry",
            ),
            models.Index(
                fields=["updated_at"],
                condition=Q(status__in=FINISHED_STATUSES),
                name="agent_session_retention",
            ),
        ]

    def __str__(self) -> str:
        try:
            title = self.title
        except DecryptionFailed:
            title = ""
        return title or f"{self.agent_id} {self.pk}"

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Save what was changed since the session was loaded, or all of a new session.

        If the user changes, the search index of the messages changes with it.
        """
        alias = using or router.db_for_write(type(self), instance=self)
        stored = not force_insert and self._is_stored(alias)
        if update_fields is None and stored:
            update_fields = self._changed_fields()
        if update_fields is not None and "title" in (update_fields := {*update_fields}):
            update_fields.add("sealed_title")
        given_away = (
            stored
            and self._loaded.get("user_id", self.user_id) != self.user_id
            and (update_fields is None or not {"user", "user_id"}.isdisjoint(update_fields))
        )
        with transaction.atomic(using=alias) if given_away else nullcontext():
            super().save(
                force_insert=force_insert,
                force_update=force_update,
                using=alias,
                update_fields=update_fields,
            )
            if given_away:
                Message.objects.using(alias).for_session(self).update(user_id=self.user_id)
        self._remember(update_fields)

    def _is_stored(self, alias: str) -> bool:
        """Return whether the database has the row. The instance may come from a replica."""
        if self._state.adding or alias == self._state.db:
            return not self._state.adding
        return type(self)._base_manager.using(alias).filter(pk=self.pk).exists()

    def _changed_fields(self) -> list[str]:
        values, loaded = self.__dict__, self._loaded
        return [
            field.name
            for field in self._meta.concrete_fields
            if not field.primary_key
            and field.attname in values
            and field.name not in self.COUNTERS
            and (
                getattr(field, "auto_now", False)
                or field.attname not in loaded
                or loaded[field.attname] != snapshot(values[field.attname])
            )
        ]

    @property
    def is_expired(self) -> bool:
        """Whether the session is past ``expires_at``."""
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def is_active(self) -> bool:
        """Whether the session is ACTIVE and not expired."""
        return self.status == SessionStatus.ACTIVE and not self.is_expired

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Validate each field; context and metadata are objects, never null.

        Raises:
            ValidationError: A value is not acceptable; keyed by field.
        """
        checked = {"title", "context", "metadata", "expires_at"} - {*(exclude or ())}
        errors: dict[str, list[ValidationError]] = {}
        for name in sorted(checked):
            if name != "expires_at" and getattr(self, name) is None:
                setattr(self, name, "" if name == "title" else {})
            try:
                # Django's validators do not see empty values: [] is no object either.
                if name in ("context", "metadata"):
                    validate_object(getattr(self, name))
                elif name == "expires_at":
                    given: object = self.expires_at
                    if isinstance(given, str):
                        self.expires_at = given = models.DateTimeField().to_python(given)
                    validate_moment(given)
            except ValidationError as error:
                errors[name] = error.error_list
        try:
            super().clean_fields(exclude={*(exclude or ()), *errors})
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)


class Message(ExactlyLoaded):
    """One message of a session, numbered 1, 2, 3, … in the order of commit.

    ``content`` (text, a list of parts or None) and ``metadata`` are exact; their columns hold the
    nearest values that a database can hold, for search and display. ``revision`` is the number
    of the last change of the message, from the same line of numbers; None: it was never changed.
    Append, change and delete messages with the repository, which looks at the owner, too.
    """

    id = models.BigAutoField(primary_key=True)
    session = models.ForeignKey(
        Session,
        verbose_name=_("session"),
        on_delete=models.CASCADE,
        related_name="messages",
        # The constraint on session and sequence has the index.
        db_index=False,
    )
    # A copy of session.user: the search index covers one user's messages.
    user = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
        editable=False,
    )
    sequence = models.PositiveIntegerField(_("sequence"))
    role = models.CharField(_("role"), max_length=64, validators=[validate_role])
    content = ContentField(_("content"), blank=True, default="")
    metadata = MetadataField(_("metadata"), default=dict, blank=True)
    payload = PayloadField(null=True, editable=False)
    idempotency_key = models.CharField(  # noqa: DJ001  (no key is no value, for the constraint)
        _("idempotency key"), max_length=255, null=True, blank=True, editable=False
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    revision = models.PositiveIntegerField(null=True, blank=True, editable=False)

    objects = MessageManager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["session_id", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["session", "sequence"], name="agent_message_sequence"),
            models.UniqueConstraint(
                fields=["session", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="agent_message_idempotency",
            ),
        ]
        indexes = [
            models.Index(
                fields=["session", "revision"],
                condition=Q(revision__isnull=False),
                name="agent_message_revision",
            ),
        ]

    def __str__(self) -> str:
        # Without the text: the admin shows this where nobody asks for the right to read messages.
        return f"{self.sequence} {self.role}"

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Save the message; its payload follows the content and the metadata.

        A new message is counted in its session, and gets the next number if it has none. A change
        of a stored one draws a revision, so that readers learn of it.

        Raises:
            DatabaseError: The message was deleted meanwhile.
            ValueError: It would change its session or its number.
        """
        if not self.user_id:
            self.user_id = self.session.user_id
        alias = using or router.db_for_write(type(self), instance=self)
        added = force_insert or not self._is_stored(alias)
        update_fields = None if update_fields is None else {*update_fields}
        if not added and update_fields is not None and (VISIBLE | PLACE).isdisjoint(update_fields):
            self._write(alias, update_fields)
            return
        with transaction.atomic(using=alias):
            if added:
                number_new([self], alias)
            else:
                self._draw_revision(alias)
                update_fields = None if update_fields is None else {*update_fields, "revision"}
            self._write(alias, update_fields, force_insert=added, force_update=not added)

    def rewrite(self, alias: str, update_fields: Collection[str] = EXACT) -> None:
        """Write fields of a stored message, encrypted or not, and draw no revision for it."""
        self._write(alias, {*update_fields}, force_update=True)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete the message as Django does; counters of the session, and readers, follow."""
        alias = using or router.db_for_write(type(self), instance=self)
        deleted = type(self)._default_manager.using(alias).filter(pk=self.pk).delete()
        self.pk = None
        return deleted

    def _is_stored(self, alias: str) -> bool:
        if self._state.adding or alias == self._state.db:
            return not self._state.adding
        return type(self)._base_manager.using(alias).filter(pk=self.pk).exists()

    def _draw_revision(self, alias: str) -> None:
        last = locked_places(type(self), [self.session_id], alias).get(self.session_id, 0)
        rows = type(self)._base_manager.using(alias).filter(pk=self.pk)
        stored: JsonObject = dict(rows.values("session_id", "sequence").first() or {})
        refuse_moving(
            name for name, value in stored.items() if self.__dict__.get(name, value) != value
        )
        self.revision = last + 1
        note_change(Session.objects.using(alias).filter(pk=self.session_id), last + 1)

    def _write(self, alias: str, update_fields: set[str] | None, **options: Any) -> None:
        if update_fields is not None:
            if update_fields & (BOUND | EXACT):
                update_fields.add("payload")
                if encryption.is_on() and not encryption.encrypts():
                    # Each column is needed for what one encrypted payload held.
                    update_fields |= EXACT
        elif encryption.is_on() and not encryption.encrypts():
            lacking = (EXACT | {"payload"}) - self.__dict__.keys()
            if lacking:
                self.refresh_from_db(fields=lacking)
        elif "payload" not in self.__dict__ and (
            encryption.is_on() or self.is_undecryptable or not EXACT.isdisjoint(self.__dict__)
        ):
            # Django leaves out deferred fields. An encrypted payload is bound to the role.
            self.refresh_from_db(fields=["payload"])
        super().save(using=alias, update_fields=update_fields, **options)

    @property
    def text(self) -> str:
        """The readable text of the message: see ``agent_sessions.message_texts``."""
        if isinstance(self.content, str) and not self.payload:
            return self.content
        return message_format.text_of_message(self.as_dict())

    def sealed_payload(self) -> str:
        """Return all of the message, encrypted and bound to its session and role."""
        whole = message_format.pack(self.as_dict(), whole=True)
        return encryption.seal(whole or "{}", "message", self.session_id, self.role)

    def as_dict(self) -> JsonObject:
        """Return the message as it was given, without its idempotency key."""
        kept = message_format.unpack(self.payload) if self.payload else {}
        message: JsonObject = {"role": self.role, "content": self.content}
        if "roleless" in kept:
            del message["role"]
        if "absent" in kept and self.content is None:
            del message["content"]
        if self.metadata or "metadata" in kept:
            message["metadata"] = self.metadata
        message.update(kept.get("extra", {}))
        return message


class DeletedMessage(models.Model):
    """What a deleted message leaves for readers who have seen it: its number.

    It goes with its session.
    """

    session = models.ForeignKey(
        Session, on_delete=models.CASCADE, related_name="deleted_messages", db_index=False
    )
    sequence = models.PositiveIntegerField()
    revision = models.PositiveIntegerField()

    class Meta:
        verbose_name = _("deleted message")
        verbose_name_plural = _("deleted messages")
        # Nobody works on them by hand.
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["session", "revision"], name="agent_deleted_revision"),
        ]

    def __str__(self) -> str:
        return f"{self.sequence}"
