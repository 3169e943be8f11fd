"""The querysets of sessions and messages, which the indexes of the models serve."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Self, overload
from uuid import UUID

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    Func,
    IntegerField,
    Q,
    Sum,
    TextField,
    Value,
)
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Cast, Coalesce
from django.db.models.sql.compiler import SQLCompiler
from django.utils import timezone

from agent_sessions import encryption
from agent_sessions.choices import FINISHED_STATUSES, OPEN_STATUSES, SessionStatus
from agent_sessions.ids import Owner, UserKey, key_of
from agent_sessions.loading import EXACT
from agent_sessions.queryset_writes import MessageWrites, Row, SessionWrites
from agent_sessions.search import lookups

# Each order has an index of the user's sessions.
_ORDER_FIELDS = {"created": ("id",), "activity": ("last_activity_at", "id")}

#: The orders of lists of sessions; a minus sign puts the newest first.
ORDERS = ("-created", "created", "-activity", "activity")

#: The longest retention: some more days reach behind the first year of the calendar.
LONGEST_DAYS = 700_000


class _Bytes(Func):
    """The bytes of a text. PostgreSQL reads them from the row without the text."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        template = "LENGTH(CAST(%(expressions)s AS BLOB))"
        return self.as_sql(compiler, connection, template=template, **context)


def _size_of_message() -> CombinedExpression:
    content, metadata = Cast("content", TextField()), Cast("metadata", TextField())
    payload = Coalesce(Cast("payload", TextField()), Value(""))
    return _Bytes(content) + _Bytes(metadata) + _Bytes(payload)


class SessionQuerySet(SessionWrites[Row]):
    """Queries on sessions."""

    # The user of all these sessions, for the index that search uses.
    _owner: UserKey | None = None

    def for_user(self, user: models.Model | UserKey) -> Self:
        """Keep the sessions of one user (a user or its primary key)."""
        key = key_of(user)
        sessions = self.filter(user_id=key)
        sessions._owner = key
        return sessions

    def in_tenant(self, tenant: str) -> Self:
        """Keep the sessions of one tenant; the empty text stands for sessions without one."""
        return self.filter(tenant=tenant)

    def owned_by(self, owner: Owner) -> Self:
        """Keep the sessions that an operation for this owner may touch."""
        sessions = self if owner.user is None else self.for_user(owner.user)
        return sessions if owner.tenant is None else sessions.in_tenant(owner.tenant)

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._owner = self._owner
        return clone

    def __or__(self, other: models.QuerySet[Any]) -> Self:
        """Combine with other sessions, whoever has them."""
        combined: Self = super().__or__(other).all()
        combined._owner = None
        return combined

    def __xor__(self, other: models.QuerySet[Any]) -> Self:
        """Combine with other sessions, whoever has them."""
        combined: Self = super().__xor__(other).all()
        combined._owner = None
        return combined

    def only(self, *fields: str) -> Self:
        """Load these fields; with the title its encrypted form, too."""
        return super().only(*fields, "sealed_title") if "title" in fields else super().only(*fields)

    def active(self, at: datetime | None = None) -> Self:
        """Keep sessions with status ACTIVE that are not past ``expires_at``."""
        now = at or timezone.now()
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            status=SessionStatus.ACTIVE,
        )

    def expired(self, at: datetime | None = None) -> Self:
        """Keep open sessions (ACTIVE, PAUSED) past ``expires_at``, which cleanup completes."""
        return self.filter(status__in=OPEN_STATUSES, expires_at__lte=at or timezone.now())

    def finished_for(self, days: float) -> Self:
        """Keep COMPLETED and FAILED sessions that did not change for a number of days.

        Raises:
            ValueError: The days are negative, or more than there are in the calendar.
        """
        if not 0 <= days <= LONGEST_DAYS:
            raise ValueError(f"The days are {days}; they must be 0 to {LONGEST_DAYS:,}.")
        moment = timezone.now() - timedelta(days=days)
        return self.filter(status__in=FINISHED_STATUSES, updated_at__lt=moment)

    def search(self, term: str, newest: int | None = None) -> Self:
        """Keep sessions whose title, or one of whose messages, has all words of the term.

        Case does not matter, parts of words count, and every character stands for itself. An empty
        term keeps nothing. Put ``for_user()`` before it: the indexes of messages then serve one
        user. Ranking is the repository's ``search_sessions``.

        Args:
            term: The words.
            newest: Largest number of latest matching messages to examine, so that a common word is
                not looked up in all messages of all users; None for all.
        """
        words = lookups.words_of(term)
        encryption.refuse_search()
        if not words:
            return self.none()
        message_model = self._message_model()
        found = message_model._default_manager.using(self.db).containing(term)
        if self._owner is not None:
            found = found.for_user(self._owner)
        if newest is not None:
            found = found.order_by("-pk")[:newest]
        return self.filter(Q(pk__in=found.values("session_id")) | lookups.matches("title", words))

    def newest_activity_first(self) -> Self:
        """Order by the last append (or creation), newest first."""
        return self.sorted_by("-activity")

    def newest_first(self) -> Self:
        """Order by creation, newest first: an order that appends do not change."""
        return self.sorted_by("-created")

    def sorted_by(self, order: str) -> Self:
        """Order by one of ``ORDERS``; ids, which are time-ordered, decide between equals."""
        sign = "-" if order.startswith("-") else ""
        return self.order_by(*(sign + field for field in _ORDER_FIELDS[order.removeprefix("-")]))

    def beyond(self, order: str, last_activity_at: datetime, session_id: UUID) -> Self:
        """Keep the sessions that follow, in this order, the one with these two values."""
        comparison = "lt" if order.startswith("-") else "gt"
        beyond = Q(**{f"id__{comparison}": session_id})
        if order.endswith("created"):
            return self.filter(beyond)
        return self.filter(
            beyond | Q(**{f"last_activity_at__{comparison}": last_activity_at}),
            # The condition above implies it; the index needs it.
            **{f"last_activity_at__{comparison}e": last_activity_at},
        )


class MessageQuerySet(MessageWrites[Row]):
    """Queries on messages."""

    def for_session(self, session: models.Model | UUID | str) -> Self:
        """Keep the messages of one session (a session or its primary key)."""
        return self.filter(session_id=key_of(session))

    def for_user(self, user: models.Model | UserKey) -> Self:
        """Keep the messages in the sessions of one user (a user or its primary key)."""
        return self.filter(user_id=key_of(user))

    def owned_by(self, owner: Owner) -> Self:
        """Keep the messages that an operation for this owner may touch."""
        messages = self if owner.user is None else self.filter(session__user_id=owner.user)
        return messages if owner.tenant is None else messages.filter(session__tenant=owner.tenant)

    def only(self, *fields: str) -> Self:
        """Load these fields; with the content and the metadata their exact values, too."""
        if not EXACT.isdisjoint(fields):
            # An encrypted payload is bound to the session and the role.
            fields = (*fields, "payload", *(("session", "role") if encryption.is_on() else ()))
        return super().only(*fields)

    def sizes_by_session(self) -> models.QuerySet[Any, tuple[UUID, int]]:
        """Return the id of each session and the bytes that its messages take."""
        total = self.order_by().values("session_id").annotate(total=Sum(_size_of_message()))
        return total.values_list("session_id", "total")

    def sizes(self) -> models.QuerySet[Any, int]:
        """Return the bytes that each message takes, without loading them."""
        return self.annotate(size=_size_of_message()).values_list("size", flat=True)

    def in_order(self) -> Self:
        """Order by session and sequence, oldest first."""
        return self.order_by("session_id", "sequence")

    def latest_first(self) -> Self:
        """Order by session and sequence, newest first."""
        return self.order_by("-session_id", "-sequence")

    def after(self, sequence: int) -> Self:
        """Keep the messages after a sequence number."""
        return self.filter(sequence__gt=sequence)

    def before(self, sequence: int) -> Self:
        """Keep the messages before a sequence number."""
        return self.filter(sequence__lt=sequence)

    def containing(self, term: str) -> Self:
        """Keep messages whose text has all words of the term; nothing for an empty one."""
        words = lookups.words_of(term)
        encryption.refuse_search()
        return self.filter(lookups.matches("content", words)) if words else self.none()


_MessageManager = models.Manager.from_queryset(MessageQuerySet)


class MessageManager(_MessageManager[Row]):
    """The manager of messages; as ``session.messages`` it is a collection, too.

    ``len()``, iteration, indexing and ``in`` use the messages loaded with the session, or fetch
    them; ``all()``, ``filter()`` and the rest are Django's.
    """

    def _of_session(self) -> models.QuerySet[Row]:
        if not hasattr(self, "instance"):
            raise TypeError("Only session.messages is a collection; use Message.objects.all().")
        return self.get_queryset()

    def __len__(self) -> int:
        return len(self._of_session())

    def __iter__(self) -> Iterator[Row]:
        return iter(self._of_session())

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        # Through a list, for negative indexes and for loaded messages.
        return list(self._of_session())[index]

    def __contains__(self, message: object) -> bool:
        return message in list(self._of_session())

    def __bool__(self) -> bool:
        return not hasattr(self, "instance") or bool(self._of_session())
