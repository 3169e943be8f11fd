"""The errors that callers can handle."""

from __future__ import annotations

from uuid import UUID


class AgentSessionsError(Exception):
    """The base class of the errors raised by agent_sessions."""


class SessionArchived(AgentSessionsError):  # noqa: N818  (reads like Session.DoesNotExist)
    """The session is archived, so it is read-only until its status changes."""

    def __init__(self, session_id: UUID) -> None:
        self.session_id = session_id
        super().__init__(f"Session {session_id} is archived and cannot be changed.")


class IdempotencyConflict(AgentSessionsError):  # noqa: N818
    """An idempotency key was used before, with other contents."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"The idempotency key {key!r} was already used with other contents.")


class AppendOutcomeUnknown(AgentSessionsError):  # noqa: N818
    """The connection was lost, or the call cancelled, before the database answered.

    The messages may or may not be stored. Read them with ``get_messages()`` before appending them
    again, or append with an ``idempotency_key``, which makes a second try safe.
    """

    def __init__(self, session_id: UUID | str) -> None:
        self.session_id = session_id
        super().__init__(
            f"It is not known whether messages were appended to session {session_id}: look, or "
            "append with an idempotency_key, which makes trying again safe."
        )


class SessionChanged(AgentSessionsError):  # noqa: N818
    """The session, or the message, is not in the state that the caller expected."""

    def __init__(self, session_id: UUID, problem: str) -> None:
        self.session_id = session_id
        super().__init__(f"Session {session_id} has changed: {problem}.")


class ChangeOutcomeUnknown(AgentSessionsError):  # noqa: N818
    """The connection was lost, or the call cancelled, before the database answered.

    Messages may or may not have been taken back or replaced. Look with ``get_messages()`` before
    trying again.
    """

    def __init__(self, session_id: UUID | str) -> None:
        self.session_id = session_id
        super().__init__(
            f"It is not known whether messages of session {session_id} were taken back: look "
            "before trying again."
        )


class DecryptionFailed(AgentSessionsError):  # noqa: N818
    """An encrypted text cannot be decrypted: the key is another one, or the row was changed."""

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"The {what} cannot be decrypted: {reason}.")


class SearchDisabled(AgentSessionsError):  # noqa: N818
    """Texts are encrypted, so they cannot be searched."""

    def __init__(self) -> None:
        super().__init__("Search is off because texts are encrypted (AGENT_SESSIONS_CIPHER).")
