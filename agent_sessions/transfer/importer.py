"""Imports lines as sessions, each in a separate transaction and at most once."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import DataError
from django.utils.translation import gettext as _

from agent_sessions.exceptions import IdempotencyConflict
from agent_sessions.ids import derived_uuid7
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.strict_json import RefusedJSON, parse_json
from agent_sessions.transfer.conversation import Conversation
from agent_sessions.transfer.formats import AUTO, read_conversation
from agent_sessions.transfer.lines import DEFAULT_MAX_ITEMS, Line, printable

_BATCH_LINES = 500
_BATCH_BYTES = 4 * 1024 * 1024
_LONGEST_SOURCE = 120
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(enum.Enum):
    """The outcome of a line."""

    IMPORTED = "imported"
    PRESENT = "present"
    """An earlier run imported it."""
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one line or element, with the reason of a rejection."""

    line: Line
    outcome: Outcome
    reason: str = ""
    session_id: UUID | None = None
    message_count: int = 0
    branches_left_out: int = 0
    """Branches of the conversation, beside the current one, that were not imported."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A session that has the id of a line."""

    user_id: object
    tenant: str
    last_sequence: int


class Importer:
    """Imports lines as sessions of one user.

    A line with an `id` becomes the session with that id, unless there is one: a session is never
    overwritten. Another line is known by *source*, its number and its contents. So importing the
    same input again, also after the process was killed, adds exactly what is missing.

    *agent_id* is the agent of lines that name none. *format_name* is one of FORMATS. With
    *new_ids* sessions get ids of their own, which follow from the user and the id in the line:
    for conversations of another user of the same database. *max_items* bounds the values in the
    JSON of a line.
    """

    def __init__(
        self,
        user_id: Any,
        source: str,
        *,
        agent_id: str = "import",
        using: str | None = None,
        format_name: str = AUTO,
        new_ids: bool = False,
        max_items: int = DEFAULT_MAX_ITEMS,
    ) -> None:
        self._user_id = user_id
        self._source = _printable_source(source)
        self._agent_id = agent_id
        self._repository = SyncSessionRepository(using=using)
        self._sessions = Session.objects.using(using)
        self._format = format_name
        self._new_ids = new_ids
        self._max_items = max_items

    def run(self, lines: Iterable[Line]) -> Iterator[Result]:
        """Import the lines; yield the result of each that is not empty.

        A rejected line does not end the import. An error of the database is raised; lines whose
        results were yielded stay imported.
        """
        for batch in _batches(lines):
            read = [(line, self._read(line)) for line in batch]
            keys = [self._key(line) for line, found in read if isinstance(found, Conversation)]
            ids = [found.id for _line, found in read if isinstance(found, Conversation)]
            present = self._present(keys)
            stored = self._stored([pk for pk in ids if pk is not None])
            for line, found in read:
                if isinstance(found, str):
                    yield Result(line, Outcome.REJECTED, reason=found)
                elif found.id is None and self._key(line) in present:
                    yield Result(line, Outcome.PRESENT)
                elif found.id is not None and found.id in stored:
                    yield self._compared(line, found, stored[found.id])
                else:
                    result = self._import(line, found)
                    if result.outcome is Outcome.IMPORTED and found.id is not None:
                        number = found.highest_number
                        stored[found.id] = _Stored(self._user_id, "", number)
                    yield result

    def _read(self, line: Line) -> Conversation | str:
        """Return the conversation of a line, or the reason that it has none."""
        try:
            if line.problem:
                _refuse(line.problem)
            if line.data is None:
                _refuse(_("This is too long: %d bytes.") % line.size)
            record = _parse(line.data, self._max_items)
            conversation = read_conversation(record, self._format)
        except ValidationError as error:
            return describe(error)
        if self._new_ids and conversation.id is not None:
            conversation.source_id = str(conversation.id)
        if conversation.source_id:
            conversation.id = self._derived_id(conversation.source_id, conversation.created_at)
        return conversation

    def _derived_id(self, name: str, created: datetime | None) -> UUID:
        # The user is a part of the key, because two users may import one file.
        return derived_uuid7(created or _LONG_AGO, f"{self._user_id} {name}")

    def _key(self, line: Line) -> str:
        digest = hashlib.blake2b((line.data or b"").strip(), digest_size=16).hexdigest()
        return f"import:{self._source}:{line.number}:{digest}"

    def _present(self, keys: list[str]) -> set[str | None]:
        mine = self._sessions.for_user(self._user_id).filter(idempotency_key__in=keys)
        return set(mine.values_list("idempotency_key", flat=True)) if keys else set()

    def _stored(self, ids: list[UUID]) -> dict[UUID, _Stored]:
        found = self._sessions.filter(pk__in=ids) if ids else self._sessions.none()
        rows = found.values_list("pk", "user_id", "tenant", "last_sequence")
        return {pk: _Stored(user, tenant, last) for pk, user, tenant, last in rows}

    def _compared(self, line: Line, conversation: Conversation, stored: _Stored) -> Result:
        if (str(stored.user_id), stored.tenant) != (str(self._user_id), ""):
            reason = _("id: Another user or tenant has a session with this id.")
            return Result(line, Outcome.REJECTED, reason=reason)
        if stored.last_sequence < conversation.highest_number:
            reason = _("id: A session with this id exists, with %(has)d of %(line)d messages.")
            numbers = {"has": stored.last_sequence, "line": conversation.highest_number}
            return Result(line, Outcome.REJECTED, reason=reason % numbers)
        return Result(line, Outcome.PRESENT, session_id=conversation.id)

    def _import(self, line: Line, conversation: Conversation) -> Result:
        try:
            return self._store(line, conversation)
        except ValidationError as error:
            return Result(line, Outcome.REJECTED, reason=describe(error))
        except (DataError, IdempotencyConflict) as error:
            return Result(line, Outcome.REJECTED, reason=printable(str(error).strip()))

    def _store(self, line: Line, conversation: Conversation) -> Result:
        key = None if conversation.id is not None else self._key(line)
        created = conversation.created_at
        fields: JsonObject = {"agent_id": self._agent_id, **conversation.fields}
        if conversation.id is not None:
            fields["id"] = conversation.id
        elif created is not None:
            # The order of ids is that of creation.
            fields["id"] = self._derived_id(self._key(line), created)
        conversation.fields = fields
        session, history = conversation.as_session(user_id=self._user_id, idempotency_key=key)
        messages: Any = conversation.messages
        try:
            stored = self._repository.create(session, messages, history)
        except IdempotencyConflict as conflict:
            if conflict.key != key:
                # Two of the line's messages have one key.
                raise
            # An import of the same input with another agent stored it meanwhile.
            return Result(line, Outcome.PRESENT)
        if stored is not session:
            return Result(line, Outcome.PRESENT, session_id=stored.pk)
        return Result(
            line,
            Outcome.IMPORTED,
            session_id=session.pk,
            message_count=session.message_count,
            branches_left_out=conversation.branches_left_out,
        )


def describe(error: ValidationError) -> str:
    """Return the error as one line of printable text: `title: …; messages[3].role: …`."""
    if not hasattr(error, "error_dict"):
        return printable(" ".join(error.messages))
    return printable(
        "; ".join(f"{field}: {' '.join(reasons)}" for field, reasons in error.message_dict.items())
    )


def _parse(data: bytes, max_items: int) -> JsonObject:
    try:
        value = parse_json(data, max_items)
    except UnicodeDecodeError as error:
        _refuse(_("This is not UTF-8: byte %d.") % (error.start + 1))
    except json.JSONDecodeError as error:
        _refuse(
            _("This is not JSON: %(problem)s at character %(column)d.")
            % {"problem": error.msg, "column": error.pos + 1}
        )
    except RefusedJSON as error:
        _refuse(str(error))
    except ValueError as error:
        _refuse(_("This is not JSON: %s.") % error)
    if not isinstance(value, dict):
        _refuse(_("This is not a JSON object."))
    return value


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if line.data is not None and not line.data.strip() and not line.problem:
            continue
        batch.append(line)
        size += line.size if line.data is not None else 0
        if len(batch) == _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _printable_source(source: str) -> str:
    if source.isprintable() and len(source) <= _LONGEST_SOURCE:
        return source
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _refuse(reason: str) -> NoReturn:
    raise ValidationError(reason)
