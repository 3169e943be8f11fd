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

from agent_sessions.exceptions import DecryptionFailed, IdempotencyConflict, SessionArchived
from agent_sessions.ids import Owner, derived_uuid7
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Session
from agent_sessions.moments import as_stored
from agent_sessions.repository import History, SyncSessionRepository
from agent_sessions.repository.growth import extend
from agent_sessions.strict_json import RefusedJSON, parse_json
from agent_sessions.transfer.conversation import Conversation
from agent_sessions.transfer.formats import AUTO, read_conversation
from agent_sessions.transfer.lines import DEFAULT_MAX_ITEMS, Line, printable

_BATCH_LINES = 500
_BATCH_BYTES = 4 * 1024 * 1024
_LONGEST_SOURCE = 120
_STORED = ("pk", "user_id", "tenant", "last_sequence")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(enum.Enum):
    """The outcome of a line."""

    IMPORTED = "imported"
    #: The session was there, and got the messages that it did not have.
    EXTENDED = "extended"
    #: An earlier run imported it.
    PRESENT = "present"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one line or element, with the reason of a rejection."""

    line: Line
    outcome: Outcome
    reason: str = ""
    session_id: UUID | None = None
    message_count: int = 0
    #: Branches of the conversation, beside the current one, that were not imported.
    branches_left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Stored:
    """A session that has the id of a line, or that an earlier import made of its conversation."""

    id: UUID
    user_id: object
    tenant: str
    last_sequence: int


class Importer:
    """Imports lines as sessions of one user in one tenant.

    A line with an `id` becomes the session with that id, unless there is one: a session is never
    overwritten. A conversation of another application is known by its id there, and another line by
    ``source``, its number and its contents. So importing the same input again, also after the
    process was killed, adds exactly what is missing.

    Args:
        source: A name for the input, by which lines without an id are known again.
        agent_id: The agent of lines that name none.
        format_name: One of FORMATS.
        update: Whether a session that is there gets the messages that follow its own in the line;
            otherwise a line with more messages is rejected.
        new_ids: Whether sessions get ids of their own, which follow from the user and the id in the
            line: for conversations of another user of the same database.
        max_items: Largest number of values in the JSON of a line.
    """

    def __init__(
        self,
        user_id: Any,
        source: str,
        *,
        tenant: str = "",
        agent_id: str = "import",
        using: str | None = None,
        format_name: str = AUTO,
        new_ids: bool = False,
        update: bool = False,
        max_items: int = DEFAULT_MAX_ITEMS,
    ) -> None:
        self._user_id = user_id
        self._tenant = tenant
        self._update = update
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
            found = [(line, each) for line, each in read if isinstance(each, Conversation)]
            present = self._present([self._key(line, each) for line, each in found])
            stored = self._stored([each.id for _line, each in found if each.id is not None])
            for line, each in read:
                if isinstance(each, str):
                    yield Result(line, Outcome.REJECTED, reason=each)
                    continue
                key = self._key(line, each)
                before = present.get(key)
                if before is None and each.id is not None:
                    before = stored.get(each.id)
                if before is None:
                    result = self._import(line, each)
                elif each.id is None:
                    result = Result(line, Outcome.PRESENT)
                else:
                    result = self._compared(line, each, before)
                if result.outcome in (Outcome.IMPORTED, Outcome.EXTENDED) and each.id is not None:
                    session_id = result.session_id or each.id
                    now = _Stored(session_id, self._user_id, self._tenant, each.highest_number)
                    stored[each.id] = present[key] = now
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
        place = f"{self._user_id} {self._tenant}" if self._tenant else f"{self._user_id}"
        return derived_uuid7(created or _LONG_AGO, f"{place} {name}")

    def _key(self, line: Line, conversation: Conversation) -> str:
        if conversation.source_id:
            # Neither its place nor its time in the file: they may change with the next export.
            return f"import:{_digest(conversation.source_id.encode('utf-8', 'surrogatepass'))}"
        return f"import:{self._source}:{line.number}:{_digest((line.data or b'').strip())}"

    def _present(self, keys: list[str]) -> dict[str | None, _Stored]:
        mine = self._sessions.for_user(self._user_id).in_tenant(self._tenant)
        found = mine.filter(idempotency_key__in=keys) if keys else mine.none()
        rows = found.values_list("idempotency_key", *_STORED)
        return {key: _Stored(*values) for key, *values in rows}

    def _stored(self, ids: list[UUID]) -> dict[UUID, _Stored]:
        found = self._sessions.filter(pk__in=ids) if ids else self._sessions.none()
        return {values[0]: _Stored(*values) for values in found.values_list(*_STORED)}

    def _compared(self, line: Line, conversation: Conversation, stored: _Stored) -> Result:
        if (str(stored.user_id), stored.tenant) != (str(self._user_id), self._tenant):
            reason = _("id: Another user or tenant has a session with this id.")
            return Result(line, Outcome.REJECTED, reason=reason)
        if stored.last_sequence >= conversation.highest_number:
            return Result(line, Outcome.PRESENT, session_id=stored.id)
        if self._update:
            return self._import(line, conversation, stored.id)
        reason = _(
            "id: A session with this id exists, with %(has)d of %(line)d messages. --update "
            "appends the others."
        )
        numbers = {"has": stored.last_sequence, "line": conversation.highest_number}
        return Result(line, Outcome.REJECTED, reason=reason % numbers)

    def _import(
        self, line: Line, conversation: Conversation, extended: UUID | None = None
    ) -> Result:
        try:
            if extended is not None:
                return self._extend(line, conversation, extended)
            return self._store(line, conversation)
        except ValidationError as error:
            return Result(line, Outcome.REJECTED, reason=describe(error))
        except (DataError, IdempotencyConflict, SessionArchived, DecryptionFailed) as error:
            return Result(line, Outcome.REJECTED, reason=printable(str(error).strip()))

    def _extend(self, line: Line, conversation: Conversation, session_id: UUID) -> Result:
        _session, history = conversation.as_session()
        if history is None:
            now = as_stored(datetime.now(UTC))
            history = History(message_times=[now] * len(conversation.messages))
        owner = Owner(self._user_id, self._tenant)
        messages = conversation.messages
        added = extend(session_id, messages, history, owner, self._repository.using)
        outcome = Outcome.EXTENDED if added else Outcome.PRESENT
        return Result(line, outcome, session_id=session_id, message_count=added)

    def _store(self, line: Line, conversation: Conversation) -> Result:
        key: str | None = self._key(line, conversation)
        if conversation.id is not None and not conversation.source_id:
            # The id says what it is.
            key = None
        created = conversation.created_at
        fields: JsonObject = {"agent_id": self._agent_id, **conversation.fields}
        if conversation.id is not None:
            fields["id"] = conversation.id
        elif created is not None:
            # The order of ids is that of creation.
            fields["id"] = self._derived_id(self._key(line, conversation), created)
        conversation.fields = fields
        session, history = conversation.as_session(
            user_id=self._user_id, tenant=self._tenant, idempotency_key=key
        )
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


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _printable_source(source: str) -> str:
    if source.isprintable() and len(source) <= _LONGEST_SOURCE:
        return source
    return _digest(source.encode("utf-8", "surrogatepass"))


def _refuse(reason: str) -> NoReturn:
    raise ValidationError(reason)
