"""Copies of what this process read from Redis, dropped when a key changes. No I/O.

Whoever reads announces it before Redis is asked; the announcement is cancelled, and a copy is
dropped, by whatever tells that the key changed. A reply is kept only when its announcement still
stands, so a value read before a change is never kept after the news of that change, in whatever
order and on whatever connections reply and news arrive.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from cache_layer.globs import glob_match

if TYPE_CHECKING:
    from cache_layer.keyspace import Keyspace

#: What a copy takes beside its key and bytes.
_OVERHEAD: Final = 400

_monotonic = time.monotonic


@dataclasses.dataclass(frozen=True)
class NearOptions:
    """``OPTIONS["NEAR_CACHE"]`` of a ``CACHES`` entry.

    Without it, only functions that ask for it have their results kept, within the usual limits.
    """

    max_entries: int = 10_000
    #: Of keys and encoded values, with what it takes to keep them.
    max_bytes: int = 32 * 1024 * 1024
    #: Whose reads are kept; None: all, ``""``: those without a namespace. Decorated functions may
    #: have it otherwise for themselves.
    namespaces: frozenset[str] | None = None

    @classmethod
    def of(cls, option: Any) -> NearOptions | None:
        """Return what the option says; None where it is off for everybody.

        :raises ImproperlyConfigured: it says something else.
        """
        if problem := cls.problem(option):
            raise ImproperlyConfigured(f"NEAR_CACHE in OPTIONS is {option!r}: {problem}.")
        if option is False:
            return None
        if option is None:
            return cls(namespaces=frozenset())
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
        #: The value made of it: a dictionary and the name in it.
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
        #: Whether one function and its arguments always stand for one key. They do not once a
        #: backend was given another prefix, as that of the tenant of a request.
        self.single_prefix = True
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

    def some(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what each of the keys holds; None for those that are not here."""
        now = _monotonic()
        if now >= self.until:
            return [None] * len(keys)
        held: list[bytes | None] = []
        for copy in map(self._copies.get, keys):
            if copy is None or now >= copy.deadline:
                held.append(None)
            else:
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
        self, mark: Mark, keys: Sequence[str], held: Sequence[bytes | None], left: Sequence[int]
    ) -> None:
        """Keep what was read, and the milliseconds it has left, if nothing was heard since.

        None is not kept.
        """
        with self._lock:
            if not self.on or mark.generation != self._generation:
                return
            pending = self._pending
            for key, token, data, milliseconds in zip(keys, mark.tokens, held, left, strict=True):
                if data is None:
                    continue
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

    def allow_other_prefixes(self) -> None:
        """From now on, what a key is depends on the backend."""
        with self._lock:
            if self.single_prefix:
                self.single_prefix = False
                self.drop_all()

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

    def after_fork(self) -> None:
        """Begin, off, in a forked child: the lock may have been held by another thread."""
        self._lock = threading.RLock()
        self.turn_off()

    def copies(self, keys: Sequence[str]) -> list[Copy] | None:
        """Return what is here of the keys; None where it is not all."""
        found = [self._copies.get(key) for key in keys]
        return None if None in found else found  # type: ignore[return-value]

    def grow(self, copy: Copy, size: int) -> None:
        """Count what was made of a copy and lives as long."""
        with self._lock:
            if copy.alive:
                copy.size += size
                self.bytes += size
                self._make_room()

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
        self._make_room()

    def _make_room(self) -> None:
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
        for decoded, name in copy.places:
            decoded.pop(name, None)


class NearJournal:
    """Drops at once what a ``Journal`` would remember."""

    def __init__(self, near: NearCache) -> None:
        self._near = near

    def add_key(self, key: str, keyspace: Keyspace | None) -> None:
        """See ``Journal.add_key``."""
        self._near.drop((key,))

    def add_pattern(self, pattern: str, keyspace: Keyspace | None) -> None:
        """See ``Journal.add_pattern``."""
        self._near.drop_matching(pattern)

    def add_keyspace(self, keyspace: Keyspace) -> None:
        """See ``Journal.add_keyspace``."""
        self._near.drop_all()


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in value
    )
