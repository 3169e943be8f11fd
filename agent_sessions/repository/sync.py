"""The synchronous operations, on one user's sessions and on those of all users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from django.db import router

from agent_sessions.conf import settings
from agent_sessions.ids import Owner, key_of
from agent_sessions.message_format import is_storable
from agent_sessions.models import Message, Session
from agent_sessions.repository import maintenance, reencryption, undecryptable
from agent_sessions.repository.changes import MessageId
from agent_sessions.repository.connections import operation
from agent_sessions.repository.history import History
from agent_sessions.repository.locking import Check
from agent_sessions.repository.reencryption import Reencrypted
from agent_sessions.repository.results import Change, Erased, Page, SessionStats
from agent_sessions.repository.undecryptable import Undecryptable
from agent_sessions.repository.users import SessionId, SyncUserSessionRepository, User


class SyncSessionRepository:
    """Operations on sessions and messages, for synchronous code.

    ``using`` is the alias of the database; by default the router chooses the one for writing
    sessions. Each operation is one transaction: it happens in whole or not at all, and may stand
    inside a transaction of the caller's (whose locks it then keeps until the end).

    ``for_user()`` returns a repository of one user's sessions, in which nobody else's exist: code
    that serves users should use it. Here ``user_id`` (a user or the primary key) and ``tenant``
    limit one call in the same way, without a further query. With a user the tenant is the empty one
    unless it is given; without a user and without a tenant anybody's session is touched.

    ``session_id`` takes a session, its UUID or the text of that; any other text raises
    ValidationError. ``check`` is called with the locked session before it is changed. Its
    exceptions are raised, and nothing has changed.

    On SQLite give the database ``"OPTIONS": {"transaction_mode": "IMMEDIATE"}``: writers then wait
    for each other (up to ``timeout``) also where the caller's transaction began by reading.
    """

    def __init__(self, using: str | None = None) -> None:
        self._using = using

    @property
    def using(self) -> str:
        """The alias of the database."""
        return self._using or router.db_for_write(Session)

    def for_user(self, user: User, tenant: str | None = "") -> SyncUserSessionRepository:
        """Return a repository of the sessions of one user (or primary key) in one tenant.

        ``tenant`` is the empty text for sessions without a tenant, None for those of every tenant.

        Raises:
            ValueError: The user is not saved, or None.
        """
        if user is None:
            raise ValueError("A user is needed, or the primary key of one.")
        return self._of(user, tenant)

    def _of(self, user: User | None, tenant: str | None) -> SyncUserSessionRepository:
        if tenant is not None and not is_storable(tenant):
            raise ValueError(f"{tenant!r} is not a tenant that a database can hold.")
        if user is None:
            return SyncUserSessionRepository(Owner(None, tenant or None), self.using)
        return SyncUserSessionRepository(Owner(key_of(user), tenant), self.using)

    def create(
        self,
        session: Session,
        messages: Iterable[Mapping[str, object]] = (),
        history: History | None = None,
    ) -> Session:
        """See SyncUserSessionRepository.create()."""
        return self._of(None, None).create(session, messages, history)

    def get(self, session_id: SessionId, user_id: User | None = None, tenant: str = "") -> Session:
        """See SyncUserSessionRepository.get()."""
        return self._of(user_id, tenant).get(session_id)

    def get_user_sessions(
        self, user_id: User, active_only: bool = True, limit: int = 50, tenant: str = ""
    ) -> list[Session]:
        """See SyncUserSessionRepository.get_user_sessions()."""
        return self.for_user(user_id, tenant).get_user_sessions(active_only, limit)

    def get_session_with_messages(
        self, session_id: SessionId, user_id: User | None = None, tenant: str = ""
    ) -> Session:
        """See SyncUserSessionRepository.get_session_with_messages()."""
        return self._of(user_id, tenant).get_session_with_messages(session_id)

    def get_messages(
        self,
        session_id: SessionId,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 50,
        user_id: User | None = None,
        tenant: str = "",
        *,
        whole_turns: bool = False,
        max_tokens: int | None = None,
        max_bytes: int | None = None,
    ) -> list[Message]:
        """See SyncUserSessionRepository.get_messages()."""
        return self._of(user_id, tenant).get_messages(
            session_id,
            after,
            before,
            limit,
            whole_turns=whole_turns,
            max_tokens=max_tokens,
            max_bytes=max_bytes,
        )

    def add_message_to_session(
        self,
        session_id: SessionId,
        message: Mapping[str, object],
        user_id: User | None = None,
        tenant: str = "",
    ) -> Message:
        """See SyncUserSessionRepository.add_message_to_session()."""
        return self._of(user_id, tenant).add_message_to_session(session_id, message)

    def add_messages(
        self,
        session_id: SessionId,
        messages: Iterable[Mapping[str, object]],
        user_id: User | None = None,
        idempotency_key: str | None = None,
        tenant: str = "",
        author: str = "",
    ) -> list[Message]:
        """See SyncUserSessionRepository.add_messages()."""
        owned = self._of(user_id, tenant)
        return owned.add_messages(session_id, messages, idempotency_key, author)

    def get_changes(
        self,
        session_id: SessionId,
        after: int = 0,
        limit: int | None = 50,
        user_id: User | None = None,
        tenant: str = "",
    ) -> list[Change]:
        """See SyncUserSessionRepository.get_changes()."""
        return self._of(user_id, tenant).get_changes(session_id, after, limit)

    def pop_message(
        self, session_id: SessionId, user_id: User | None = None, tenant: str = ""
    ) -> Message | None:
        """See SyncUserSessionRepository.pop_message()."""
        return self._of(user_id, tenant).pop_message(session_id)

    def delete_message(
        self,
        session_id: SessionId,
        message_id: MessageId,
        user_id: User | None = None,
        tenant: str = "",
    ) -> None:
        """See SyncUserSessionRepository.delete_message()."""
        self._of(user_id, tenant).delete_message(session_id, message_id)

    def clear_messages(
        self, session_id: SessionId, user_id: User | None = None, tenant: str = ""
    ) -> int:
        """See SyncUserSessionRepository.clear_messages()."""
        return self._of(user_id, tenant).clear_messages(session_id)

    def replace_tail(
        self,
        session_id: SessionId,
        after: int,
        messages: Iterable[Mapping[str, object]],
        expected_last: int | None = None,
        user_id: User | None = None,
        tenant: str = "",
    ) -> list[Message]:
        """See SyncUserSessionRepository.replace_tail()."""
        owned = self._of(user_id, tenant)
        return owned.replace_tail(session_id, after, messages, expected_last)

    def update_message(
        self,
        session_id: SessionId,
        message_id: MessageId,
        message: Mapping[str, object],
        expected: Mapping[str, object] | None = None,
        user_id: User | None = None,
        tenant: str = "",
    ) -> Message:
        """See SyncUserSessionRepository.update_message()."""
        owned = self._of(user_id, tenant)
        return owned.update_message(session_id, message_id, message, expected)

    def update_session_context(
        self,
        session_id: SessionId,
        context: Mapping[str, object],
        replace: bool = False,
        user_id: User | None = None,
        check: Check = None,
        tenant: str = "",
    ) -> Session:
        """See SyncUserSessionRepository.update_session_context()."""
        owned = self._of(user_id, tenant)
        return owned.update_session_context(session_id, context, replace, check)

    def update_session(
        self,
        session_id: SessionId,
        changes: Mapping[str, object],
        user_id: User | None = None,
        check: Check = None,
        tenant: str = "",
    ) -> Session:
        """See SyncUserSessionRepository.update_session()."""
        return self._of(user_id, tenant).update_session(session_id, changes, check)

    def delete(
        self,
        session_id: SessionId,
        user_id: User | None = None,
        check: Check = None,
        tenant: str = "",
    ) -> None:
        """See SyncUserSessionRepository.delete()."""
        self._of(user_id, tenant).delete(session_id, check)

    def delete_user_data(self, user_id: User, tenant: str | None = None, by: str = "") -> Erased:
        """Delete all sessions and messages of the user; return a report of the deleted rows.

        What a project keys to sessions goes with them, and entries of the admin's log lose their
        texts. Works in batches: after an interruption call it again. Writes one line to the logger
        ``agent_sessions.audit``.

        Args:
            user_id: The user, or the user's primary key.
            tenant: The tenant; None for every tenant.
            by: Who asks for it, for the report.
        """
        return self.for_user(user_id, tenant).delete_user_data(by)

    @operation
    def cleanup_expired_sessions(self, progress: Callable[[int], None] | None = None) -> int:
        """Complete the ACTIVE and PAUSED sessions past ``expires_at``; return how many.

        Works in short batches and may run twice at once; a session that gets a message meanwhile
        stays.

        Args:
            progress: Called after each batch with its number of sessions.
        """
        return maintenance.cleanup(self.using, progress)

    @operation
    def purge_old_sessions(
        self, days: float | None = None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete sessions that have been COMPLETED or FAILED for long; return how many.

        Args:
            days: For more than how many days; None for AGENT_SESSIONS_RETENTION_DAYS. If that is
                None too, nothing is deleted.
            progress: Called after each batch with its number of sessions.

        Raises:
            ValueError: The days are negative, or more than there are in the calendar.
        """
        days = settings.RETENTION_DAYS if days is None else days
        return 0 if days is None else maintenance.purge(days, self.using, progress)

    @operation
    def verify_counters(
        self, repair: bool = False, progress: Callable[[int], None] | None = None
    ) -> list[UUID]:
        """Return the ids of sessions whose counters disagree with their messages.

        Messages written or deleted without the repository cause that. Sequence numbers are never
        reused.

        Args:
            repair: Whether to correct the counters.
            progress: Called after each batch with its number of sessions.
        """
        return maintenance.verify(self.using, repair, progress)

    @operation
    def reencrypt(self, progress: Callable[[int], None] | None = None) -> Reencrypted:
        """Encrypt plain texts, and those with older keys, with the newest key.

        Where AGENT_SESSIONS_ENCRYPT is False, write encrypted texts as plain ones. Each batch is a
        short transaction; after an interruption call it again.

        Args:
            progress: Called after each batch with the number of rows looked at.

        Raises:
            DecryptionFailed: A text cannot be decrypted, or AGENT_SESSIONS_CIPHER is not set.
        """
        return reencryption.reencrypt(self.using, progress)

    @operation
    def find_undecryptable(
        self, limit: int = 1000, progress: Callable[[int], None] | None = None
    ) -> list[Undecryptable]:
        """Return sessions and messages that cannot be decrypted.

        Every row is read, and none is changed.

        Args:
            limit: Largest number of rows to return.
            progress: Called after each batch with the number of rows looked at.
        """
        return undecryptable.find(self.using, limit, progress)

    def bulk_update_session_status(
        self,
        session_ids: Iterable[SessionId],
        status: str,
        user_id: User | None = None,
        tenant: str = "",
    ) -> int:
        """See SyncUserSessionRepository.bulk_update_session_status()."""
        return self._of(user_id, tenant).bulk_update_session_status(session_ids, status)

    def get_session_stats(self, user_id: User, tenant: str = "") -> SessionStats:
        """See SyncUserSessionRepository.get_session_stats()."""
        return self.for_user(user_id, tenant).get_session_stats()

    def get_paginated_user_sessions(
        self, user_id: User, page: int, page_size: int, tenant: str = ""
    ) -> Page[Session]:
        """See SyncUserSessionRepository.get_paginated_user_sessions()."""
        return self.for_user(user_id, tenant).get_paginated_user_sessions(page, page_size)

    def search_sessions(
        self,
        user_id: User,
        search_term: str,
        limit: int = 20,
        excerpts: int = 3,
        tenant: str = "",
    ) -> list[Session]:
        """See SyncUserSessionRepository.search_sessions()."""
        return self.for_user(user_id, tenant).search_sessions(search_term, limit, excerpts)


# Readers of help() should not have to look in two places.
for _name, _method in vars(SyncSessionRepository).items():
    if (_method.__doc__ or "").startswith("See "):
        _method.__doc__ = vars(SyncUserSessionRepository)[_name].__doc__
