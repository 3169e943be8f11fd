"""Export: sessions to JSON Lines, in pieces."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from django.db.models import Case, OuterRef, Subquery, When
from django.db.models.functions import Coalesce

from agent_sessions.message_format import JsonObject
from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.querysets import SessionQuerySet
from agent_sessions.transfer.conversation import OWN_KEYS, TIMES
from agent_sessions.transfer.dates import from_microseconds, microseconds, written
from agent_sessions.transfer.lines import EXTRA_KEY

# With context and metadata of the largest size they take some 25 MB.
_SESSIONS = 50
_FIRST_PAGE = 50
_LARGEST_PAGE = 2_000
_PAGE_BYTES = 4 * 1024 * 1024

_TIMES_IN_A_PIECE = 1_000


OnFailure = Callable[[Session], None] | None


def export_sessions(
    sessions: SessionQuerySet[Session], on_failure: OnFailure = None
) -> Iterator[bytes]:
    """Yield the JSON Lines of the sessions, oldest first, in pieces of bounded size.

    A piece may end anywhere in a line; only the last piece of a line ends with a newline. Sessions
    and messages are read in pages by their keys, so that no cursor stays open and memory grows
    neither with the number of sessions nor with their length.

    A line says where texts are missing because they cannot be decrypted.

    Args:
        sessions: The sessions.
        on_failure: Called with the session of each line in which texts are missing.
    """
    ordered = _with_sizes(sessions).order_by("id")
    page = ordered[:_SESSIONS]
    while found := list(page):
        for group in _groups(found):
            yield from _lines(group, on_failure)
        if len(found) < _SESSIONS:
            return
        page = ordered.filter(id__gt=found[-1].pk)[:_SESSIONS]


def _with_sizes(sessions: SessionQuerySet[Session]) -> SessionQuerySet[Session]:
    """Annotate the bytes of a session's messages; None for a long session, which has pages."""
    sizes = Message.objects.filter(session_id=OuterRef("pk")).sizes_by_session().values("total")
    short = When(message_count__lte=_LARGEST_PAGE, then=Coalesce(Subquery(sizes), 0))
    return sessions.annotate(size=Case(short, default=None))


def _groups(sessions: list[Session]) -> Iterator[list[Session]]:
    """Yield short sessions together, so that one query reads the messages of many."""
    group: list[Session] = []
    waiting = 0
    for session in sessions:
        size: int | None = vars(session)["size"]
        # A long session stands alone, or the query of its group would read all its messages.
        size = _PAGE_BYTES + 1 if size is None else size
        if group and waiting + size > _PAGE_BYTES:
            yield group
            group, waiting = [], 0
        group.append(session)
        waiting += size
    yield group


def _lines(group: list[Session], on_failure: OnFailure) -> Iterator[bytes]:
    if len(group) == 1:
        yield from _line(group[0], _messages(group[0]), on_failure)
        return
    messages = (
        Message.objects.using(group[0]._state.db)
        .filter(session_id__in=[session.pk for session in group])
        .in_order()
    )
    by_session = {key: list(found) for key, found in groupby(messages, lambda row: row.session_id)}
    for session in group:
        found = by_session.get(session.pk, [])
        # Messages appended since the sessions were read are left to the next export.
        rows = [row for row in found if row.sequence <= session.last_sequence]
        yield from _line(session, rows, on_failure)


def _messages(session: Session) -> Iterator[Message]:
    messages = Message.objects.using(session._state.db).for_session(session).in_order()
    size = _FIRST_PAGE
    place = -1
    while place < session.last_sequence:
        # With a limit in place of the upper number PostgreSQL may sort all remaining rows.
        end = min(place + size, session.last_sequence)
        rows = list(messages.after(place).filter(sequence__lte=end))
        yield from rows
        place = end
        if rows:
            # Messages have from bytes to megabytes: the next page follows this one's average.
            seen = sum(_size(row) for row in rows)
            size = max(1, min(_LARGEST_PAGE, len(rows) * _PAGE_BYTES // (seen + 1)))
        elif following := messages.after(end).values_list("sequence", flat=True).first():
            place = following - 1
        else:
            return


def _size(message: Message) -> int:
    if message.is_undecryptable:
        return 0
    content = message.content if isinstance(message.content, str) else ""
    size = len(content) + len(message.payload or "")
    return size + len(_json(message.metadata)) if message.metadata else size


def _line(session: Session, messages: Iterable[Message], on_failure: OnFailure) -> Iterator[bytes]:
    # Integers, because a session may have a million messages.
    times, numbers = array("q"), array("q")
    lacks_texts = session.is_undecryptable
    yield b'{"messages": ['
    separator = b""
    for message in messages:
        lacks_texts |= message.is_undecryptable
        yield separator + _json(_message(message))
        separator = b", "
        times.append(microseconds(message.created_at))
        numbers.append(message.sequence)
    yield b"]"
    for name, value in _fields(session).items():
        yield b", " + _json(name) + b": " + _json(value)
    if times:
        yield from _list("message_times", times, as_times=True)
    if any(number != place for place, number in enumerate(numbers, 1)):
        yield from _list("message_numbers", numbers)
    if session.last_sequence > (numbers[-1] if numbers else 0):
        yield b', "last_sequence": %d' % session.last_sequence
    if lacks_texts:
        yield b', "undecryptable": true'
    yield b"}\n"
    if lacks_texts and on_failure is not None:
        on_failure(session)


def _message(message: Message) -> JsonObject:
    if message.is_undecryptable:
        return {"role": message.role, "content": None}
    return message.as_dict()


def _list(name: str, values: Sequence[int], as_times: bool = False) -> Iterator[bytes]:
    yield b", " + _json(name) + b": ["
    for start in range(0, len(values), _TIMES_IN_A_PIECE):
        part = values[start : start + _TIMES_IN_A_PIECE]
        items = [written(from_microseconds(value)) if as_times else value for value in part]
        yield (b", " if start else b"") + _json(items)[1:-1]
    yield b"]"


def _fields(session: Session) -> JsonObject:
    metadata = session.readable("metadata", {})
    kept = metadata.get(EXTRA_KEY)
    extra: JsonObject = {}
    if isinstance(kept, dict):
        extra = {name: value for name, value in kept.items() if name not in OWN_KEYS}
    if extra:
        # What has a name that means something else in a line stays where it is.
        kept = {name: value for name, value in kept.items() if name in OWN_KEYS}
        metadata = {name: value for name, value in metadata.items() if name != EXTRA_KEY}
        metadata |= {EXTRA_KEY: kept} if kept else {}
    fields = {
        "id": str(session.pk),
        "title": session.readable("title", ""),
        "agent_id": session.agent_id,
        "metadata": metadata,
        "context": session.readable("context", {}),
        "status": "" if session.status == SessionStatus.ACTIVE else session.status,
        **{
            name: written(moment)
            for name in TIMES
            if (moment := getattr(session, name)) is not None
        },
    }
    expires = session.expires_at
    return (
        {name: value for name, value in fields.items() if value}
        | {"expires_at": None if expires is None else written(expires)}
        | extra
    )


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Lone surrogates exist in JSON as escapes only.
        return json.dumps(value).encode()
