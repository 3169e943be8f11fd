"""The synchronous operations on the sessions of one user, with their documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias
from uuid import UUID

from django.db import models
from django.db.models import Prefetch

from agent_sessions.ids import Owner, UserKey
from agent_sessions.models import Message, Session
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.repository import (
    append,
    erasure,
    maintenance,
    reading,
    search,
    sessions,
    windows,
)
from agent_sessions.repository import changes as message_changes
from agent_sessions.repository.changes import MessageId
from agent_sessions.repository.connections import operation
from agent_sessions.repository.history import History
from agent_sessions.repository.locking import Check
from agent_sessions.repository.results import Change, Erased, Page, SessionStats, Window

#: A session, its id, or the text of its id.
SessionId: TypeAlias = Session | UUID | str

#: A user, or the user's primary key.
User: TypeAlias = models.Model | UserKey

_MOST_ROWS = 2**31


class SyncUserSessionRepository:
    """Operations on the sessions of one user in one tenant; no other sessions exist in it.

    ``SyncSessionRepository.for_user()`` makes one. Each operation is one transaction: it happens in
    whole or not at all, and may stand inside a transaction of the caller's (whose locks it then
    keeps until the end). Outside one, an operation that lost its connection, or conflicted with
    others, is repeated if that is safe.

    ``session_id`` takes a session, its UUID or the text of that; any other text raises
    ValidationError. ``check`` is called with the locked session before it is changed. Its
    exceptions are raised, and nothing has changed.
    """

    def __init__(self, owner: Owner, using: str) -> None:
        self.owner = owner
        self.using = using

    @property
    def _sessions(self) -> SessionQuerySet[Session]:
        return Session.objects.using(self.using).owned_by(self.owner)

    @operation
    def create(
        self,
        session: Session,
        messages: Iterable[Mapping[str, object]] = (),
        history: History | None = None,
    ) -> Session:
        """Store a new session, with its first messages if there are any, and return it.

        The session keeps the status and the expiry it has. The repository of one user gives it that
        user and tenant. With an ``idempotency_key`` on it a retry returns the session that the
        first call stored for this user and tenant.

        Args:
            session: A session that is not saved.
            messages: Its first messages: see ``add_message_to_session()``.
            history: The times and numbers of messages that were written elsewhere.

        Raises:
            ValidationError: A value is not acceptable, the user does not exist or is another one,
                or the id is taken; keyed by field.
            IdempotencyConflict: The key was used for a session with other contents.
        """
        return sessions.create(session, messages, history, self.owner, self.using)

    @operation
    def get(self, session_id: SessionId) -> Session:
        """Return the session.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            DecryptionFailed: A text of the session cannot be decrypted.
        """
        return self._sessions.get(pk=_uuid(session_id)).require_decrypted()

    @operation
    def get_user_sessions(self, active_only: bool = True, limit: int = 50) -> list[Session]:
        """Return the user's sessions, newest activity first.

        A session whose title, context or metadata cannot be decrypted is among them, and reading
        that raises DecryptionFailed.

        Args:
            active_only: Whether to leave out sessions that are not ACTIVE or are past
                ``expires_at``, whether or not cleanup has run.
            limit: Largest number of sessions.

        Raises:
            ValueError: The limit is below 1.
        """
        found = self._sessions.active() if active_only else self._sessions
        return list(found.newest_activity_first()[: _checked(limit)])

    @operation
    def get_session_with_messages(self, session_id: SessionId) -> Session:
        """Return the session with all its messages loaded, in order.

        ``len(session.messages)`` and iterating it cost no query, in async code too. Reading a
        message that cannot be decrypted raises DecryptionFailed.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            DecryptionFailed: A text of the session cannot be decrypted.
        """
        messages = Prefetch("messages", queryset=Message.objects.using(self.using).in_order())
        found = self._sessions.prefetch_related(messages).get(pk=_uuid(session_id))
        return found.require_decrypted()

    @operation
    def get_messages(
        self,
        session_id: SessionId,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 50,
        *,
        whole_turns: bool = False,
        max_tokens: int | None = None,
        max_bytes: int | None = None,
    ) -> list[Message]:
        """Return a window of the session's messages, in order.

        A reader that follows with ``after`` = the last sequence it saw misses nothing and sees
        nothing twice. Reading a message that cannot be decrypted raises DecryptionFailed; the
        others can be read.

        Args:
            session_id: The session.
            after: Return the first messages behind this sequence number; None for the last ones.
            before: Return messages before this sequence number only.
            limit: Largest number of messages; None for all.
            whole_turns: Leave messages out at the beginning until no tool's result lacks its call,
                and no call the reasoning before it. Of results alone nothing is left.
            max_tokens: End the window before the first message with which it has more tokens, as
                the function that AGENT_SESSIONS_TOKEN_COUNTER names counts them, or estimated.
            max_bytes: End the window before the first message with which it has more bytes, as
                JSON in UTF-8.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            ValueError: A limit is below 1.
        """
        limit = None if limit is None else _checked(limit)
        return windows.read(
            Window(_uuid(session_id), after, before, limit, self.owner),
            self.using,
            whole_turns=whole_turns,
            max_tokens=None if max_tokens is None else _checked(max_tokens),
            max_bytes=None if max_bytes is None else _checked(max_bytes),
        )

    @operation
    def add_message_to_session(
        self, session_id: SessionId, message: Mapping[str, object]
    ) -> Message:
        """Append one message and return it.

        The message is a dict in the chat format: ``role``, ``content`` (a string, a list of parts,
        or None beside ``tool_calls``), optionally ``metadata`` and any other key. With
        ``idempotency_key`` a retry returns the first message and adds nothing.

        The session's counters, ``last_message_at`` and its sliding expiry move with it, all or
        nothing. A COMPLETED or FAILED session becomes ACTIVE again. A session that grows past
        AGENT_SESSIONS_MAX_MESSAGES logs one warning.

        Appends to one session wait for each other: none is lost or repeated, and the order of the
        numbers is the order of the commits. Inside a transaction of the caller's the session stays
        locked until that ends. Where the connection is lost, a message with an ``idempotency_key``
        is sent once more.

        Raises:
            ValidationError: The message is not acceptable; keyed by field.
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
            IdempotencyConflict: The key came with another message before.
            AppendOutcomeUnknown: The connection was lost, and the message has no key.
        """
        return append.append_one(_uuid(session_id), message, self.owner, self.using)

    @operation
    def add_messages(
        self,
        session_id: SessionId,
        messages: Iterable[Mapping[str, object]],
        idempotency_key: str | None = None,
        author: str = "",
    ) -> list[Message]:
        """Append several messages at once, in consecutive numbers, all or none; return them.

        Messages whose ``idempotency_key`` was used before are returned in their place and not added
        again.

        Args:
            session_id: The session.
            messages: The messages: see ``add_message_to_session()``.
            idempotency_key: One key for all of them, of at most 240 characters: a retry returns
                them all. It never meets a key of a message, nor one of another author.
            author: A text that says whose keys these are, for others who write into the user's
                session, such as staff.

        Raises:
            IdempotencyConflict: The key came with other messages, or with more or fewer of them,
                before.
            ValidationError: As of ``add_message_to_session()``, like the other errors.
        """
        return append.append_many(
            _uuid(session_id), messages, self.owner, self.using, idempotency_key, author
        )

    @operation
    def get_changes(
        self, session_id: SessionId, after: int = 0, limit: int | None = 50
    ) -> list[Change]:
        """Return what happened to the session's messages after a number, in order.

        A reader who comes back with the ``number`` of the last change it has seen sees each append,
        change and deletion once and in order. A message that was changed several times in between,
        or before it was read, is seen as it is now; one that was deleted before it was read is not
        seen, and its deletion may be.

        Args:
            session_id: The session.
            after: The number of the last change that was seen; 0 at the beginning.
            limit: Largest number of changes; None: all.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            ValueError: The limit is below 1.
        """
        limit = None if limit is None else _checked(limit)
        return message_changes.get_changes(_uuid(session_id), after, limit, self.owner, self.using)

    @operation
    def pop_message(self, session_id: SessionId) -> Message | None:
        """Delete the last message and return it; None if there is none.

        Two callers at once get two different messages. Numbers are never used again: that of the
        message is gone, and the deletion takes the next. ``message_count`` and
        ``last_message_at`` follow; the status and the expiry stay as they are.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
            ChangeOutcomeUnknown: The connection was lost; a second try might take back one message
                more.
        """
        return message_changes.pop_message(_uuid(session_id), self.owner, self.using)

    @operation
    def delete_message(self, session_id: SessionId, message_id: MessageId) -> None:
        """Delete one message. Its key is free again.

        See ``pop_message()`` for numbers and counters.

        Args:
            session_id: The session.
            message_id: The number of the message, or its ``idempotency_key``.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
            Message.DoesNotExist: There is no such message, also where the connection was lost and
                the first try has deleted it.
        """
        message_changes.delete_message(_uuid(session_id), message_id, self.owner, self.using)

    @operation
    def clear_messages(self, session_id: SessionId) -> int:
        """Delete all messages of the session, which stays; return how many.

        All or none. See ``pop_message()`` for numbers and counters.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
        """
        return message_changes.clear_messages(_uuid(session_id), self.owner, self.using)

    @operation
    def replace_tail(
        self,
        session_id: SessionId,
        after: int,
        messages: Iterable[Mapping[str, object]],
        expected_last: int | None = None,
    ) -> list[Message]:
        """Delete the messages after a number and append others, all or nothing; return these.

        The new messages get new numbers, and the session reopens and expires as with an append,
        unless there are none.

        Args:
            session_id: The session.
            after: The number of the last message that stays; 0: none.
            messages: The new messages; none cut the session off.
            expected_last: The number of the last message that the caller has seen, 0 for none:
                nothing happens if there is another one by now.

        Raises:
            ValidationError: A message is not acceptable; keyed by its place and field.
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
            SessionChanged: The last message is not the expected one.
            IdempotencyConflict: A message that stays has one of the keys.
            ChangeOutcomeUnknown: The connection was lost.
        """
        return message_changes.replace_tail(
            _uuid(session_id), after, messages, expected_last, self.owner, self.using
        )

    @operation
    def update_message(
        self,
        session_id: SessionId,
        message_id: MessageId,
        message: Mapping[str, object],
        expected: Mapping[str, object] | None = None,
    ) -> Message:
        """Put a message in place of a stored one, and return it.

        It keeps its number, its key and its time, and its ``revision`` becomes the next number of
        the session. An equal message changes nothing, so that calling it twice does no harm. A
        retry of the append that added the message returns it as it is now.

        Args:
            session_id: The session.
            message_id: The number of the message, or its ``idempotency_key``.
            message: The new message.
            expected: The message as the caller has seen it: nothing happens if it is another one
                by now.

        Raises:
            ValidationError: The message is not acceptable; keyed by field.
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            Message.DoesNotExist: There is no such message.
            SessionArchived: The session is archived.
            SessionChanged: The message is not the expected one.
        """
        return message_changes.update_message(
            _uuid(session_id), message_id, message, expected, self.owner, self.using
        )

    @operation
    def update_session_context(
        self,
        session_id: SessionId,
        context: Mapping[str, object],
        replace: bool = False,
        check: Check = None,
    ) -> Session:
        """Merge the top-level keys into the session's context and return the session.

        Two writers of different keys both succeed. Calling it twice does no harm.

        Args:
            session_id: The session.
            context: The keys to set.
            replace: Whether to put the given context in place of the old one.
            check: Called with the locked session before it is changed.

        Raises:
            ValidationError: The context is not a JSON object that a database can hold.
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived.
        """
        return sessions.update_context(
            _uuid(session_id), context, replace, self.owner, check, self.using
        )

    @operation
    def update_session(
        self, session_id: SessionId, changes: Mapping[str, object], check: Check = None
    ) -> Session:
        """Change title, agent_id, status, metadata or expires_at; return the session.

        Writes the given fields and no others. Calling it twice does no harm.

        Args:
            session_id: The session.
            changes: The new values, by name of the field.
            check: Called with the locked session before it is changed.

        Raises:
            ValidationError: A name is another one, or a value is not acceptable; keyed by field.
            Session.DoesNotExist: There is no such session, or it is not the owner's.
            SessionArchived: The session is archived, and the change leaves it so.
        """
        return sessions.update(_uuid(session_id), changes, self.owner, check, self.using)

    @operation
    def delete(self, session_id: SessionId, check: Check = None) -> None:
        """Delete the session with all its messages.

        Raises:
            Session.DoesNotExist: There is no such session, or it is not the owner's; also where the
                connection was lost and the first try has deleted it.
        """
        maintenance.delete_session(_uuid(session_id), self.owner, check, self.using)

    @operation
    def delete_user_data(self, by: str = "") -> Erased:
        """Delete all sessions and messages of the user; return a report of the deleted rows.

        What a project keys to sessions goes with them, and entries of the admin's log lose their
        texts. Works in batches: after an interruption call it again. Writes one line to the logger
        ``agent_sessions.audit``.

        Args:
            by: Who asks for it, for the report.
        """
        return erasure.delete_user_data(self.owner, by, self.using)

    @operation
    def bulk_update_session_status(self, session_ids: Iterable[SessionId], status: str) -> int:
        """Set the status of several sessions; return how many of them changed.

        Unknown and repeated ids, and sessions that have the status already, do not count. Works in
        batches: after an interruption call it again.

        Raises:
            ValidationError: The status is none, or an id is not a UUID.
        """
        ids = [_uuid(session_id) for session_id in session_ids]
        return maintenance.set_status(ids, status, self.owner, self.using)

    @operation
    def get_session_stats(self) -> SessionStats:
        """Return statistics of the user's sessions, from their counters."""
        return reading.stats(self._sessions)

    @operation
    def get_paginated_user_sessions(self, page: int, page_size: int) -> Page[Session]:
        """Return one page of all the user's sessions, newest activity first.

        Args:
            page: The number of the page, from 1; a page past the end is empty.
            page_size: Largest number of sessions on it.

        Raises:
            ValueError: The page is below 1, or the page size is outside
                1…AGENT_SESSIONS_MAX_PAGE_SIZE.
        """
        return reading.page(self._sessions, page, page_size)

    @operation
    def search_sessions(
        self, search_term: str, limit: int = 20, excerpts: int = 3
    ) -> list[Session]:
        """Return the user's sessions with all words of the term in the title or in one message.

        Case does not matter, parts of words count, every character stands for itself. Whole words
        come before beginnings of words, those before other parts; then the title comes before
        messages; then the most recent. An empty term finds nothing.

        Args:
            search_term: The words; every character stands for itself.
            limit: Largest number of sessions.
            excerpts: Largest number of pieces of matching messages on each session: see
                ``agent_sessions.search.excerpts.Excerpt``. They take one more query, which 0
                avoids.

        Raises:
            ValueError: The limit is below 1, or the number of excerpts below 0.
        """
        if excerpts < 0:
            raise ValueError(f"The number of excerpts is {excerpts}; it must be at least 0.")
        return search.search(
            self.owner, search_term, _checked(limit), min(excerpts, _MOST_ROWS), self.using
        )


def _uuid(session_id: SessionId) -> UUID:
    if isinstance(session_id, UUID):
        return session_id
    if isinstance(session_id, Session):
        return session_id.pk
    value: UUID = Session._meta.pk.to_python(session_id)
    return value


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"The limit is {limit}; it must be at least 1.")
    # More than any database counts to would be an error of the database.
    return int(min(limit, _MOST_ROWS))
