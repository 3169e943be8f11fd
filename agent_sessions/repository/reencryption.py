"""Writing texts again as they would be written now: encrypted, with the newest key, or plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.db import connections, models, transaction
from django.db.models import F
from django.db.models.functions import Left

from agent_sessions import encryption
from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.message_numbers import locking
from agent_sessions.models import Message, Session
from agent_sessions.repository.sessions import keyed_digest

_LOOKED_AT = 500
# Each may have megabytes.
_SESSIONS_AT_ONCE = 20
_MESSAGES_AT_ONCE = 10
# With a wrong key all rows fail: more failures end the walk.
_MOST_FAILURES = 100


class Reencrypted(NamedTuple):
    """How many rows were written again."""

    sessions: int
    messages: int


def reencrypt(using: str, progress: Callable[[int], None] | None = None) -> Reencrypted:
    """Write again what is not as AGENT_SESSIONS_CIPHER would write it now.

    With a cipher, plain texts and those with older keys; where AGENT_SESSIONS_ENCRYPT is False,
    all that are encrypted, which become plain. Rows that cannot be decrypted stay as they
    are, and DecryptionFailed is raised for the first of them, after all others were written: at
    once without a cipher, and after the hundredth such row. Each batch is a short transaction;
    after an interruption the next call goes on with what is left. ``progress`` is called with the
    number of rows looked at.
    """
    failures: list[DecryptionFailed] = []
    sessions = _walk(Session, using, _stale_sessions, _write_sessions, progress, failures)
    messages = _walk(Message, using, _stale_messages, _write_messages, progress, failures)
    if failures:
        raise failures[0]
    return Reencrypted(sessions, messages)


def _walk(
    model: Any,
    using: str,
    stale_among: Callable[[Any], list[Any]],
    write: Callable[[list[Any], str], int],
    progress: Callable[[int], None] | None,
    failures: list[DecryptionFailed],
) -> int:
    written = 0
    rest = model.objects.using(using).order_by("pk")
    size = _SESSIONS_AT_ONCE if model is Session else _MESSAGES_AT_ONCE
    while keys := list(rest.values_list("pk", flat=True)[:_LOOKED_AT]):
        stale = stale_among(model.objects.using(using).filter(pk__in=keys))
        for start in range(0, len(stale), size):
            written += _written(stale[start : start + size], using, write, failures)
        if progress is not None:
            progress(len(keys))
        rest = model.objects.using(using).filter(pk__gt=keys[-1]).order_by("pk")
    return written


def _written(
    keys: list[Any],
    using: str,
    write: Callable[[list[Any], str], int],
    failures: list[DecryptionFailed],
) -> int:
    """Write the rows in one transaction; one by one if one of them cannot be decrypted."""
    try:
        with transaction.atomic(using=using):
            return write(keys, using)
    except DecryptionFailed as error:
        if len(keys) > 1:
            return sum(_written([key], using, write, failures) for key in keys)
        failures.append(error)
        if not encryption.is_on() or len(failures) >= _MOST_FAILURES:
            raise failures[0] from None
        return 0


def _stale_sessions(sessions: Any) -> list[Any]:
    found = []
    columns = ("pk", "title", "sealed_title", "context", "metadata", "idempotency_digest")
    for pk, title, sealed_title, *objects, digest in sessions.values_list(*columns).iterator(20):
        current = all(map(encryption.is_current, objects))
        if title or sealed_title:
            current = current and encryption.is_current(sealed_title)
        if encryption.encrypts() and digest and digest != keyed_digest(digest):
            current = False
        if not current:
            found.append(pk)
    return sorted(found)


def _write_sessions(keys: list[Any], using: str) -> int:
    sessions = list(locking(Session.objects.using(using).filter(pk__in=keys)))
    for session in sessions:
        if encryption.encrypts():
            session.idempotency_digest = keyed_digest(session.idempotency_digest)
        # Not updated_at: nothing has changed for a reader.
        session.save(
            using=using, update_fields=["title", "context", "metadata", "idempotency_digest"]
        )
    return len(sessions)


def _stale_messages(messages: Any) -> list[Any]:
    beginning = Left("payload", encryption.BEGINNING)
    if encryption.encrypts():
        rows = messages.annotate(beginning=beginning).values_list("pk", "beginning")
    else:
        sealed = messages.filter(payload__startswith=encryption.MARK)
        rows = sealed.annotate(beginning=beginning).values_list("pk", "beginning")
    return sorted(pk for pk, begins in rows if not encryption.is_current(begins))


def _write_messages(keys: list[Any], using: str) -> int:
    messages = Message.objects.using(using).filter(pk__in=keys).order_by("pk")
    if connections[using].features.has_select_for_update:
        messages = messages.select_for_update()
    else:
        # SQLite waits for its turn to write only where the transaction read nothing before.
        models.QuerySet.update(messages.order_by(), sequence=F("sequence"))
    found = list(messages)
    for message in found:
        message.rewrite(using)
    return len(found)
