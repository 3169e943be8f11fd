"""The operations, synchronous. What is long lives in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models import Prefetch

from agent_sessions.conf import settings
from agent_sessions.models import Message, Session
from agent_sessions.querysets import SessionQuerySet, user_key
from agent_sessions.repository import append, counters, maintenance, reading, search, sessions
from agent_sessions.repository.locking import Check
from agent_sessions.repository.results import Erased, Page, SessionStats, Window

SessionId = UUID | str
"""The id of a session, or its text."""


class SyncSessionRepository:
    """Operations on sessions and messages, for synchronous code.

    ``using`` is the alias of the database; by default the router says which one sessions are
    written to. Each operation is one transaction: it happens in whole or not at all, and may
    stand inside a transaction of the caller's (whose locks it then keeps until the end).

    ``user_id`` takes a user's primary key or the user. ``session_id`` takes a UUID or its
    text; a text that is none raises ValidationError. A method that takes both acts on this
    user's session only, for no further query: another user's does not exist.

    ``check`` is called with the session, locked, before it is changed. What it raises is
    raised, and nothing has changed.

    On SQLite give the database ``"OPTIONS": {"transaction_mode": "IMMEDIATE"}``: writers then
    wait for each other (up to ``timeout``) also where the caller's transaction began by
    reading.
    """

    def __init__(self, using: str | None = None) -> None:
        self._using = using

    @property
    def using(self) -> str:
        """The alias of the database."""
        return self._using or router.db_for_write(Session)

    @property
    def _sessions(self) -> SessionQuerySet:
        queryset: SessionQuerySet = Session.objects.using(self.using)
        return queryset

    def create(self, session: Session, messages: Iterable[Mapping[str, Any]] = ()) -> Session:
        """Store a new session, with its first messages if there are any, and return it.

        The session keeps the status and the expiry it has. With an ``idempotency_key`` on it a
        retry returns the session that the first call stored for this user.

        Raises ValidationError, keyed by field, if a value is not acceptable, the user does
        not exist or the id is taken; IdempotencyConflict if the key was used for a session
        with other contents. See add_message_to_session for messages.
        """
        return sessions.create(session, messages, self.using)

    def get(self, session_id: SessionId) -> Session:
        """Return the session. Raises Session.DoesNotExist."""
        return self._sessions.get(pk=session_id)

    def get_user_sessions(
        self, user_id: Any, active_only: bool = True, limit: int = 50
    ) -> list[Session]:
        """Return the user's sessions, newest activity first, at most ``limit``.

        ``active_only`` keeps those with status ACTIVE that are not past ``expires_at``,
        whether or not cleanup has run. Raises ValueError if the limit is below 1.
        """
        limit = _checked(limit)
        found = self._sessions.for_user(user_id)
        if active_only:
            found = found.active()
        return list(found.newest_activity_first()[:limit])

    def get_session_with_messages(self, session_id: SessionId) -> Session:
        """Return the session with all its messages loaded, in order.

        ``len(session.messages)`` and iterating it cost no query, in async code too. Raises
        Session.DoesNotExist.
        """
        messages = Prefetch("messages", queryset=Message.objects.using(self.using).in_order())
        return self._sessions.prefetch_related(messages).get(pk=session_id)

    def get_messages(
        self,
        session_id: SessionId,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 50,
        user_id: Any = None,
    ) -> list[Message]:
        """Return a window of the session's messages, in order.

        With ``after`` (a sequence number) the first messages behind it, otherwise the last
        ones, before ``before`` if it is given; at most ``limit``, all with None. A reader that
        follows with ``after`` = the last sequence it saw misses nothing and sees nothing twice.

        Raises Session.DoesNotExist, and ValueError if the limit is below 1.
        """
        limit = None if limit is None else _checked(limit)
        wanted = Window(_uuid(session_id), after, before, limit, _owner(user_id))
        return reading.window(wanted, self.using)

    def add_message_to_session(
        self, session_id: SessionId, message: Mapping[str, Any], user_id: Any = None
    ) -> Message:
        """Append one message and return it.

        The message is a dict in the chat format: ``role``, ``content`` (a string, a list of
        parts, or None beside ``tool_calls``), optionally ``metadata`` and any other key. With
        ``idempotency_key`` a retry returns the first message and adds nothing.

        The session's counters, ``last_message_at`` and its sliding expiry move with it, all
        or nothing. A COMPLETED or FAILED session becomes ACTIVE again. Past
        AGENT_SESSIONS_MAX_MESSAGES one warning is logged.

        Inside a transaction of the caller's the session stays locked until that ends.

        Raises ValidationError, keyed by field; Session.DoesNotExist; SessionArchived;
        IdempotencyConflict if the key came with another message before.
        """
        return append.append_one(_uuid(session_id), message, _owner(user_id), self.using)

    def add_messages(
        self,
        session_id: SessionId,
        messages: Iterable[Mapping[str, Any]],
        user_id: Any = None,
        idempotency_key: str | None = None,
    ) -> list[Message]:
        """Append several messages at once, in consecutive numbers, all or none; return them.

        Messages whose ``idempotency_key`` was used before are returned in their place and not
        added again. ``idempotency_key`` of the call is one for all of them, of at most 240
        characters: a retry returns them all, and IdempotencyConflict is raised also if there
        were more or fewer of them before. See add_message_to_session.
        """
        return append.append_many(
            _uuid(session_id), messages, _owner(user_id), self.using, idempotency_key
        )

    def update_session_context(
        self,
        session_id: SessionId,
        context: Mapping[str, Any],
        replace: bool = False,
        user_id: Any = None,
        check: Check = None,
    ) -> Session:
        """Merge the top-level keys into the session's context and return the session.

        Two writers of different keys both succeed. ``replace`` puts the given context in
        place of the old one.

        Raises ValidationError if the context is not a JSON object that a database can hold;
        Session.DoesNotExist; SessionArchived.
        """
        return sessions.update_context(
            _uuid(session_id), context, replace, _owner(user_id), check, self.using
        )

    def update_session(
        self,
        session_id: SessionId,
        changes: Mapping[str, Any],
        user_id: Any = None,
        check: Check = None,
    ) -> Session:
        """Change title, agent_id, status, metadata or expires_at; return the session.

        Raises ValidationError, keyed by field, for other names and unacceptable values;
        Session.DoesNotExist; SessionArchived unless the change takes the session out of the
        archive.
        """
        return sessions.update(_uuid(session_id), changes, _owner(user_id), check, self.using)

    def delete(self, session_id: SessionId, user_id: Any = None, check: Check = None) -> None:
        """Delete the session with all its messages. Raises Session.DoesNotExist."""
        maintenance.delete_session(_uuid(session_id), _owner(user_id), check, self.using)

    def delete_user_data(self, user_id: Any) -> Erased:
        """Delete all sessions and messages of the user; return how many there were.

        Works in batches: after an interruption call it again. Writes one line to the logger
        ``agent_sessions.audit``.
        """
        return maintenance.delete_user_data(user_key(user_id), self.using)

    def cleanup_expired_sessions(self, progress: Callable[[int], None] | None = None) -> int:
        """Complete the ACTIVE and PAUSED sessions past ``expires_at``; return how many.

        Works in short batches and may run twice at once; a session that gets a message
        meanwhile stays. ``progress`` is called after each batch with its number of sessions.
        """
        return maintenance.cleanup(self.using, progress)

    def purge_old_sessions(
        self, days: float | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete sessions COMPLETED or FAILED for more than ``days``; return how many.

        By default AGENT_SESSIONS_RETENTION_DAYS; where that is None nothing is deleted.
        ``progress`` is called after each batch with its number of sessions. Raises ValueError
        if the days are negative, or more than there are in the calendar.
        """
        days = settings.RETENTION_DAYS if days is None else days
        return 0 if days is None else maintenance.purge(days, self.using, progress)

    def verify_counters(
        self, repair: bool = False, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Return the ids of sessions whose counters disagree with their messages.

        Messages written or deleted past the repository lead to that. ``repair`` counts them
        again; numbers given out once are not given out again. ``progress`` is called after
        each batch with its number of sessions.
        """
        return counters.verify(self.using, repair, progress)

    def bulk_update_session_status(
        self, session_ids: Iterable[SessionId], status: str, user_id: Any = None
    ) -> int:
        """Set the status of several sessions; return how many of them changed.

        Unknown and repeated ids, and sessions that have the status already, do not count.
        With ``user_id`` only this user's sessions are changed. Raises ValidationError if the
        status is none or an id is not a UUID.
        """
        ids = [_uuid(session_id) for session_id in session_ids]
        return maintenance.set_status(ids, status, _owner(user_id), self.using)

    def get_session_stats(self, user_id: Any) -> SessionStats:
        """Return the numbers of the user's sessions, from their counters."""
        return reading.stats(self._sessions.for_user(user_id))

    def get_paginated_user_sessions(self, user_id: Any, page: int, page_size: int) -> Page[Session]:
        """Return one page of all the user's sessions, newest activity first.

        Raises ValueError if the page is below 1 or the page size is outside
        1…AGENT_SESSIONS_MAX_PAGE_SIZE.
        """
        return reading.page(self._sessions.for_user(user_id), page, page_size)

    def search_sessions(
        self, user_id: Any, search_term: str, limit: int = 20, excerpts: int = 3
    ) -> list[Session]:
        """Return the user's sessions with all words of the term in the title or in one message.

        Case does not matter, parts of words count, every character stands for itself. Whole
        words come before beginnings of words, those before other parts; then the title comes
        before messages; then the most recent. An empty term finds nothing.

        Each session has as ``excerpts`` what was found in its messages, at most so many of
        them: see :class:`agent_sessions.search.excerpts.Excerpt`. They take one more query; 0
        spares it.

        Raises ValueError if the limit is below 1 or the number of excerpts below 0.
        """
        if excerpts < 0:
            raise ValueError(f"The number of excerpts is {excerpts}; it must be at least 0.")
        return search.search(
            user_key(user_id), search_term, _checked(limit), min(excerpts, 2**31), self.using
        )


def _uuid(session_id: SessionId) -> UUID:
    if isinstance(session_id, UUID):
        return session_id
    value: UUID = Session._meta.pk.to_python(session_id)
    return value


def _owner(user_id: Any) -> Any:
    key = user_key(user_id)
    if key is None and user_id is not None:
        # An unsaved user must not pass for "whoever it is".
        raise ValueError("The user is not saved yet.")
    return key


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"The limit is {limit}; it must be at least 1.")
    # More than any database counts to would be an error of the database.
    return int(min(limit, 2**31))
