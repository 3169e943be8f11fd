"""The arguments and results of repository operations beside models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from agent_sessions.ids import Owner
from agent_sessions.models import Message, Session
from cache_layer.codec import register

Item = TypeVar("Item")


class Window(NamedTuple):
    """The requested messages of a session. See SyncSessionRepository.get_messages()."""

    session_id: UUID
    after: int | None
    before: int | None
    limit: int | None
    owner: Owner

    @property
    def follows(self) -> bool:
        """Whether the first messages behind a number are requested; otherwise the last ones."""
        return self.after is not None


class ChangeKind(StrEnum):
    """What happened to a message; the names of the server-sent events."""

    ADDED = "message"
    UPDATED = "message.updated"
    DELETED = "message.deleted"


class Change(NamedTuple):
    """An append, a change or a deletion of a message. See SyncSessionRepository.get_changes()."""

    #: The place in the session's line of numbers, after which the next changes come.
    number: int
    kind: ChangeKind
    #: The number of the message.
    sequence: int
    #: The message as it is now; None where it was deleted.
    message: Message | None


@register
@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a listing, counted from 1. A page past the end has no items."""

    items: list[Item]
    page: int
    page_size: int
    total_items: int

    @property
    def total_pages(self) -> int:
        """The number of pages; 0 with no items."""
        return -(-self.total_items // self.page_size)

    @property
    def has_next(self) -> bool:
        """Whether a page with items follows."""
        return self.page < self.total_pages

    @property
    def has_previous(self) -> bool:
        """Whether a page with items precedes."""
        return 1 < self.page <= self.total_pages + 1


@register
@dataclass(frozen=True, slots=True)
class SessionStats:
    """Statistics of one user's sessions."""

    total_sessions: int
    #: Sessions with status ACTIVE that are not past ``expires_at``.
    active_sessions: int
    total_messages: int
    #: The number of sessions by status, each status present.
    sessions_by_status: Mapping[str, int]

    @property
    def avg_messages_per_session(self) -> float:
        """Messages per session; 0.0 with no sessions."""
        return self.total_messages / self.total_sessions if self.total_sessions else 0.0


@dataclass(frozen=True, slots=True)
class Erased:
    """The report of an erasure: the erased rows by table, the user and the time, without texts.

    ``deleted`` has the rows that were deleted, by table; ``redacted`` those that stay without
    the texts they had, such as entries of the admin's log.
    """

    #: The key of the user.
    user: str
    #: The tenant; None: all of them.
    tenant: str | None
    #: Who asked for it; empty where that was not said.
    by: str
    started_at: datetime
    finished_at: datetime
    deleted: Mapping[str, int]
    redacted: Mapping[str, int]

    @property
    def sessions(self) -> int:
        """The number of sessions deleted."""
        return self.deleted.get(Session._meta.db_table, 0)

    @property
    def messages(self) -> int:
        """The number of messages deleted."""
        return self.deleted.get(Message._meta.db_table, 0)
