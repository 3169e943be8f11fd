"""Import: lines to sessions, each in a transaction of its own and at most once."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import DataError
from django.utils.translation import gettext as _

from agent_sessions.exceptions import IdempotencyConflict
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.transfer.lines import EXTRA_KEY, Line

_BATCH_LINES = 500
_BATCH_BYTES = 4 * 1024 * 1024
_LONGEST_SOURCE = 120


class Outcome(enum.Enum):
    """The outcome of a line."""

    IMPORTED = "imported"
    PRESENT = "present"
    """An earlier run imported it."""
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one line, with the reason of a rejection."""

    line: Line
    outcome: Outcome
    reason: str = ""
    session_id: UUID | None = None
    message_count: int = 0


class Importer:
    """Imports lines as sessions of one user.

    A line is known by *source*, its number and its contents: importing the same input again, also
    after the process was killed, adds exactly what is missing. *agent_id* is the agent of lines
    that name none.
    """

    def __init__(
        self,
        user_id: Any,
        source: str,
        *,
        agent_id: str = "import",
        using: str | None = None,
    ) -> None:
        self._user_id = user_id
        self._source = _printable(source)
        self._agent_id = agent_id
        self._repository = SyncSessionRepository(using=using)
        self._sessions = Session.objects.using(using)

    def run(self, lines: Iterable[Line]) -> Iterator[Result]:
        """Import the lines; yield the result of each that is not empty.

        A rejected line does not end the import. An error of the database is raised; lines whose
        results were yielded stay imported.
        """
        for batch in _batches(lines):
            keys = [self._key(line) for line in batch]
            present = set(
                self._sessions.for_user(self._user_id)
                .filter(idempotency_key__in=[key for key in keys if key])
                .values_list("idempotency_key", flat=True)
            )
            for line, key in zip(batch, keys, strict=True):
                if key in present:
                    yield Result(line, Outcome.PRESENT)
                else:
                    yield self._import_line(line, key)

    def _key(self, line: Line) -> str | None:
        if line.data is None:
            return None
        digest = hashlib.blake2b(line.data.strip(), digest_size=16).hexdigest()
        return f"import:{self._source}:{line.number}:{digest}"

    def _import_line(self, line: Line, key: str | None) -> Result:
        try:
            if line.data is None:
                _refuse(_("The line is too long: %d bytes.") % line.size)
            return self._store(line, key, parse_line(line.data))
        except ValidationError as error:
            return Result(line, Outcome.REJECTED, reason=describe(error))
        except (DataError, IdempotencyConflict) as error:
            return Result(line, Outcome.REJECTED, reason=str(error).strip())

    def _store(self, line: Line, key: str | None, conversation: JsonObject) -> Result:
        messages = conversation.pop("messages")
        conversation.setdefault("agent_id", self._agent_id)
        session = Session(user_id=self._user_id, idempotency_key=key, **conversation)
        try:
            created = self._repository.create(session, messages)
        except IdempotencyConflict as conflict:
            if conflict.key != key:
                # Two of the line's messages have one key.
                raise
            # An import of the same input with another agent stored it meanwhile.
            return Result(line, Outcome.PRESENT)
        if created.pk != session.pk:
            return Result(line, Outcome.PRESENT, session_id=created.pk)
        return Result(
            line, Outcome.IMPORTED, session_id=session.pk, message_count=session.message_count
        )


def parse_line(data: bytes) -> JsonObject:
    """Return a line's conversation: `messages`, `status` and further fields of a Session.

    Raises ValidationError, keyed by the place in the line, if it is not a conversation.
    """
    conversation = _parse_json(data)
    if not isinstance(conversation, dict):
        _refuse(_("The line is not a JSON object."))
    if not isinstance(conversation.get("messages"), list):
        raise ValidationError({"messages": _("This list is required.")})
    fields: JsonObject = {
        "messages": conversation.pop("messages"),
        "status": conversation.pop("status", SessionStatus.ACTIVE),
    }
    if fields["status"] not in SessionStatus.values:
        raise ValidationError({"status": _("%.100r is not a status.") % (fields["status"],)})
    agent = conversation.pop("agent", None)
    agent_id = conversation.pop("agent_id", None) or agent
    for name, value, kind in (
        ("title", conversation.pop("title", None), str),
        ("agent_id", agent_id, str),
        ("metadata", conversation.pop("metadata", None), dict),
        ("context", conversation.pop("context", None), dict),
    ):
        if value is None:
            continue
        if not isinstance(value, kind):
            raise ValidationError(
                {name: _("This is not an object.") if kind is dict else _("This is not a string.")}
            )
        fields[name] = value
    if conversation:
        fields["metadata"] = {**fields.get("metadata", {}), EXTRA_KEY: conversation}
    return fields


def describe(error: ValidationError) -> str:
    """Return the error as one line of text, such as `title: …; messages[3].role: …`."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return "; ".join(
        f"{field}: {' '.join(reasons)}" for field, reasons in error.message_dict.items()
    )


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        _refuse(_("The line is not UTF-8: byte %d.") % (error.start + 1))
    except json.JSONDecodeError as error:
        _refuse(
            _("The line is not JSON: %(problem)s at character %(column)d.")
            % {"problem": error.msg, "column": error.colno}
        )
    except RecursionError:
        _refuse(_("The line is nested too deeply."))
    except ValueError as error:
        # An integer with more digits than Python converts.
        _refuse(str(error))


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if line.data is not None and not line.data.strip():
            continue
        batch.append(line)
        size += line.size if line.data is not None else 0
        if len(batch) == _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _printable(source: str) -> str:
    if source.isprintable() and len(source) <= _LONGEST_SOURCE:
        return source
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _refuse(reason: str) -> NoReturn:
    raise ValidationError(reason)


def _refuse_constant(name: str) -> NoReturn:
    _refuse(_("%s is not JSON.") % name)
