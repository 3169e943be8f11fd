"""Copies of what this process read from Redis, dropped when a key changes. No I/O.

Whoever reads announces it before Redis is asked; the announcement is cancelled, and a copy is
dropped, by whatever tells that the key changed. A reply is kept only when its announcement still
stands, so a value read before a change is never kept after the news of that change, in whatever
order and on whatever connections reply and news arrive.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured

from cache_layer.backends.encoding import UnreadableValueError
from cache_layer.backends.envelope import (
    ENVELOPE,
    FRESH_END,
    NEVER,
    NONCE_END,
    payload_start,
)
from cache_layer.backends.operations.base import Read
from cache_layer.backends.operations.tagged import Aged, CachedRead
from cache_layer.globs import glob_match
from cache_layer.metrics import NEAR_HITS, own_counts, record

if TYPE_CHECKING:
    from cache_layer.backends.context import Scope

#: What a copy takes beside its key and bytes.
_OVERHEAD: Final = 400

#: Names by which one copy may be known.
_PLACES: Final = 16

_PLAIN: Final = frozenset(
    {str, bytes, int, float, bool, type(None), UUID, Decimal}
    | {dt.date, dt.time, dt.timedelta, dt.datetime}
)

#: What ``Answers.get`` returns when it has no answer.
ABSENT: Final[Any] = object()

_monotonic = time.monotonic


@dataclasses.dataclass(frozen=True)
class NearOptions:
    """``OPTIONS["NEAR_CACHE"]`` of a ``CACHES`` entry."""

    max_entries: int = 10_000
    #: Of keys and encoded values, with what it takes to keep them.
    max_bytes: int = 32 * 1024 * 1024
    #: Whose reads are kept; None: all, ``""``: those without a namespace.
    namespaces: frozenset[str] | None = None

    @classmethod
    def of(cls, option: Any) -> NearOptions | None:
        """Return what the option says; None where it is off.

        :raises ImproperlyConfigured: it says something else.
        """
        if problem := cls.problem(option):
            raise ImproperlyConfigured(f"NEAR_CACHE in OPTIONS is {option!r}: {problem}.")
        if not option:
            return None
        given = {} if option is True else dict(option)
        if (names := given.get("namespaces")) is not None:
            given["namespaces"] = frozenset(names)
        return cls(**given)

    @classmethod
    def problem(cls, option: Any) -> str:
        """Say what is wrong with the option; nothing where it is right."""
        if option is None or isinstance(option, bool):
            return ""
        if not isinstance(option, Mapping):
            return "it must be True, False or a dictionary"
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in option.items():
            if name not in known:
                return f"it knows {', '.join(known)}, not {name!r}"
            if name == "namespaces":
                if value is not None and not _are_names(value):
                    return "namespaces must be a list of strings"
            elif type(value) is not int or value < 1:
                return f"{name} must be a whole number above 0"
        return ""


class Copy:
    """What one key held. ``deadline`` is the monotonic time at which it expires."""

    __slots__ = ("alive", "data", "deadline", "places", "size", "used")

    def __init__(self, data: bytes, deadline: float, size: int) -> None:
        self.data = data
        self.deadline = deadline
        self.size = size
        self.alive = True
        #: Since it was last looked at for eviction.
        self.used = False
        #: The answers made of it: a dictionary and the name in it.
        self.places: list[tuple[dict[Any, Any], Any]] = []


class Mark:
    """The announcement of a read."""

    __slots__ = ("began", "generation", "tokens")

    def __init__(self, generation: int, began: float, tokens: list[object]) -> None:
        self.generation = generation
        self.began = began
        self.tokens = tokens


class NearCache:
    """Of one alias in one process: shared by its threads and event loops.

    Off, and empty, until ``turn_on()``. What was not used for the longest goes first when there
    are too many entries or bytes.
    """

    def __init__(self, options: NearOptions) -> None:
        self.options = options
        self.on = False
        #: Until when what is here may be used without further news, on the monotonic clock.
        self.until = 0.0
        self.bytes = 0
        self._lock = threading.RLock()
        self._generation = 0
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._pending: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def find(self, keys: Sequence[str]) -> list[bytes] | None:
        """Return what the keys hold; None where not all of it is here."""
        now = _monotonic()
        if now >= self.until:
            return None
        held = []
        for key in keys:
            copy = self._copies.get(key)
            if copy is None or now >= copy.deadline:
                return None
            copy.used = True
            held.append(copy.data)
        return held

    def expect(self, keys: Sequence[str]) -> Mark | None:
        """Announce that the keys will be read; None where nothing is kept."""
        generation = self._generation
        if not self.on:
            return None
        pending = self._pending
        # Who came first announced it for all: what cancels the one cancels the others.
        tokens = [pending.setdefault(key, object()) for key in keys]
        return Mark(generation, _monotonic(), tokens)

    def keep(
        self, mark: Mark, keys: Sequence[str], held: Sequence[bytes], left: Sequence[int]
    ) -> None:
        """Keep what was read, and the milliseconds it has left, if nothing was heard since."""
        with self._lock:
            if not self.on or mark.generation != self._generation:
                return
            pending = self._pending
            for key, token, data, milliseconds in zip(keys, mark.tokens, held, left, strict=True):
                if pending.get(key) is not token:
                    copy = self._copies.get(key)
                    if copy is not None and copy.data != data:
                        # Two replies, of before and after a change that was not heard of yet:
                        # whoever got the later one must not find the earlier one here.
                        self.drop((key,))
                    continue
                del pending[key]
                if milliseconds == -1:
                    self._add(key, data, math.inf)
                elif milliseconds > 0:
                    self._add(key, data, mark.began + milliseconds / 1000)

    def forget(self, mark: Mark, keys: Sequence[str]) -> None:
        """Take an announcement back."""
        pending = self._pending
        for key, token in zip(keys, mark.tokens, strict=True):
            if pending.get(key) is token:
                with self._lock:
                    if pending.get(key) is token:
                        del pending[key]

    def drop(self, keys: Iterable[str]) -> None:
        """Drop copies and cancel announcements: the keys changed."""
        with self._lock:
            for key in keys:
                self._pending.pop(key, None)
                copy = self._copies.pop(key, None)
                if copy is not None:
                    self._end(copy)

    def drop_matching(self, pattern: str) -> None:
        """Drop and cancel what matches a pattern of full keys."""
        with self._lock:
            every = {**self._pending, **self._copies}
            self.drop([key for key in every if glob_match(pattern, key)])

    def drop_all(self) -> None:
        """Drop and cancel everything."""
        with self._lock:
            self._pending.clear()
            for copy in self._copies.values():
                self._end(copy)
            self._copies.clear()
            self.bytes = 0

    def turn_on(self, until: float, condition: Callable[[], bool]) -> None:
        """Begin, empty, if the condition holds: from now on every change is heard of."""
        with self._lock:
            self.drop_all()
            self._generation += 1
            self.until = until
            self.on = condition()

    def turn_off(self) -> None:
        """End: changes may happen unheard."""
        with self._lock:
            self.on = False
            self.until = 0.0
            self.drop_all()

    def start_again(self) -> None:
        """Begin, off, in a forked child: the lock may have been held by another thread."""
        self._lock = threading.RLock()
        self.turn_off()

    def copies(self, keys: Sequence[str]) -> list[Copy] | None:
        """Return what is here of the keys; None where it is not all."""
        found = [self._copies.get(key) for key in keys]
        return None if None in found else found  # type: ignore[return-value]

    @property
    def lock(self) -> Any:
        """Held by whoever needs several steps to be one."""
        return self._lock

    def _add(self, key: str, data: bytes, deadline: float) -> None:
        size = len(data) + len(key) + _OVERHEAD
        self.drop((key,))
        if size > self.options.max_bytes:
            return
        self._copies[key] = Copy(data, deadline, size)
        self.bytes += size
        while self.bytes > self.options.max_bytes or len(self) > self.options.max_entries:
            oldest, copy = self._copies.popitem(last=False)
            if copy.used:
                # A second chance, at the end of the queue.
                copy.used = False
                self._copies[oldest] = copy
            else:
                self._end(copy)

    def _end(self, copy: Copy) -> None:
        copy.alive = False
        self.bytes -= copy.size
        for answers, name in copy.places:
            answers.pop(name, None)


class Answer:
    """What a read amounts to, as long as its copies live; None as payload: the value itself."""

    __slots__ = ("copy", "counter", "payload", "tags", "until", "value")

    def __init__(
        self,
        copies: Sequence[Copy],
        until: float,
        value: Any,
        payload: bytes | None,
        namespace: str,
    ) -> None:
        self.copy = copies[0]
        self.tags = copies[1:]
        self.until = until
        self.value = value if payload is None else None
        self.payload = payload
        self.counter = (namespace, NEAR_HITS)


class Answers:
    """Answers by the caller's names: what makes a hit cheap."""

    __slots__ = ("_answers", "_decode", "_find", "_near")

    def __init__(self, near: NearCache, decode: Callable[[bytes], Any]) -> None:
        self._near = near
        self._decode = decode
        self._answers: dict[Any, Answer] = {}
        self._find = self._answers.get

    def get(self, name: Any) -> Any:
        """Return the value, or ``ABSENT``."""
        answer = self._find(name)
        if answer is None:
            return ABSENT
        now = _monotonic()
        if now >= answer.until or now >= self._near.until:
            return ABSENT
        # An answer is taken away with its first copy; the others it has to look at.
        for tag in answer.tags:
            if not tag.alive:
                return ABSENT
            tag.used = True
        answer.copy.used = True
        if answer.payload is None:
            value = answer.value
        else:
            # Decoded anew: what a caller changes is not changed for others.
            try:
                value = self._decode(answer.payload)
            except UnreadableValueError:
                return ABSENT
        counter = answer.counter
        counts = own_counts.counts
        counts[counter] = counts.get(counter, 0) + 1
        return value

    def learn(self, name: Any, read: Read[Any]) -> None:
        """Take note of a read whose keys may be here now."""
        copies = self._near.copies(read.reads)
        if copies is None:
            return
        answered, value = read.answer([copy.data for copy in copies])
        if not answered:
            return
        # The read itself was counted.
        record(read.context.namespace, "hits", -1)
        if type(value) is Aged:
            return
        data = copies[0].data
        until = min(copy.deadline for copy in copies)
        start = 0
        if data.startswith(ENVELOPE):
            start = payload_start(data)
            fresh_until = data[NONCE_END:FRESH_END]
            if fresh_until != NEVER:
                # From then on, reading it has consequences.
                early = read.early if isinstance(read, CachedRead) else 0
                until = min(until, _monotonic() + (int(fresh_until) - early) / 1000 - time.time())
        payload = None if is_plain(value) else data[start:]
        answer = Answer(copies, until, value, payload, read.context.namespace)
        with self._near.lock:
            # A copy that was dropped meanwhile would never take this away.
            if not copies[0].alive:
                return
            known = self._answers.get(name)
            if known is None or known.copy is not copies[0]:
                if len(copies[0].places) == _PLACES:
                    return
                copies[0].places.append((self._answers, name))
            self._answers[name] = answer


class NearJournal:
    """Drops at once what a ``Journal`` would remember."""

    def __init__(self, near: NearCache) -> None:
        self._near = near

    def add_key(self, key: str, scope: Scope | None) -> None:
        """See ``Journal.add_key``."""
        self._near.drop((key,))

    def add_pattern(self, pattern: str, scope: Scope | None) -> None:
        """See ``Journal.add_pattern``."""
        self._near.drop_matching(pattern)

    def add_scope(self, scope: Scope) -> None:
        """See ``Journal.add_scope``."""
        self._near.drop_all()


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in value
    )


def recount(namespace: str) -> None:
    """Count a hit, which was counted already, as one of the near cache."""
    record(namespace, NEAR_HITS)
    record(namespace, "hits", -1)


def is_plain(value: Any) -> bool:
    """Tell whether a value cannot be changed, nor anything in it."""
    cls = type(value)
    if cls is tuple or cls is frozenset:
        return all(map(is_plain, value))
    return cls in _PLAIN
