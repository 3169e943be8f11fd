"""Finds rows with texts that cannot be decrypted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from agent_sessions import encryption
from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.models import Message, Session

_LOOKED_AT = 500
# Each may have megabytes.
_READ_AT_ONCE = 20


class Undecryptable(NamedTuple):
    """A session, or a message of it, that has a text that cannot be decrypted."""

    session_id: UUID
    #: The number of the message; None where it is a text of the session itself.
    sequence: int | None
    reason: str


def find(
    using: str, limit: int, progress: Callable[[int], None] | None = None
) -> list[Undecryptable]:
    """Return at most ``limit`` rows. See SyncSessionRepository.find_undecryptable()."""
    found: list[Undecryptable] = []
    for model, failures in ((Session, of_sessions), (Message, of_messages)):
        rows: Any = model._default_manager.using(using).order_by("pk")
        rest = rows
        while keys := list(rest.values_list("pk", flat=True)[:_LOOKED_AT]):
            for failure in failures(rows.filter(pk__in=keys)):
                found.append(failure)
                if len(found) == limit:
                    return found
            if progress is not None:
                progress(len(keys))
            rest = rows.filter(pk__gt=keys[-1])
    return found


def of_sessions(sessions: Any) -> Iterator[Undecryptable]:
    """Yield which of the sessions have a title, a context or metadata that fail."""
    columns = ("title", "context", "metadata")
    stored = sessions.values_list("pk", "sealed_title", *columns[1:])
    for pk, *values in stored.iterator(_READ_AT_ONCE):
        for name, value in zip(columns, values, strict=True):
            if isinstance(value, str) and (reason := _problem(value, "session", name, pk)):
                yield Undecryptable(pk, None, reason)
                break


def of_messages(messages: Any) -> Iterator[Undecryptable]:
    """Yield which of the messages fail."""
    sealed = messages.filter(payload__startswith=encryption.MARK)
    stored = sealed.values_list("session_id", "sequence", "role", "payload")
    for session_id, sequence, role, payload in stored.iterator(_READ_AT_ONCE):
        if reason := _problem(payload, "message", session_id, role):
            yield Undecryptable(session_id, sequence, reason)


def _problem(sealed: str, *belongs_to: object) -> str:
    try:
        encryption.unseal(sealed, *belongs_to)
    except DecryptionFailed as failure:
        return str(failure)
    return ""
