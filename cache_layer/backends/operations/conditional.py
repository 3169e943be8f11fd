# ruff: noqa: D102 - the methods of an operation are described in ``base``
"""Operations of django-redis on one key, beyond Django's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Command, OperationContext, Refusal, held, px, raw
from cache_layer.backends.operations.lua import Script, plain, plain_set
from cache_layer.backends.operations.single import Add, Expire, Set
from cache_layer.backends.outage import CacheUnavailableError
from cache_layer.journal import Journal

#: data, px -> 1 when the key held a value and holds the data now.
_REPLACE = Script(
    """
if not live(KEYS[1]) then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
return 1
""",
    plain=plain_set("XX"),
)

#: -> 1 when the key holds a value whose expiry was removed.
_PERSIST = Script(
    """
local head = head_of(KEYS[1])
if not alive(KEYS[1], head) then return 0 end
for _, tag in ipairs(tags_of(KEYS[1], head)) do cover(tag[1], '') end
return redis.call('PERSIST', KEYS[1])
""",
    plain=plain("PERSIST"),
)


class AddOnRedis(Add):
    """An ``Add`` for locks, which only Redis can answer: memory knows only one process.

    It tells the journal nothing: a replay could drop a lock that another caller holds by then.
    """

    __slots__ = ("_unavailable",)
    refusal = Refusal.OUTAGE

    def __init__(self, add: Add, unavailable: Callable[[str], CacheUnavailableError]) -> None:
        super().__init__(add.context, add.key, add.data, add.milliseconds)
        self._unavailable = unavailable

    def in_memory(self, store: MemoryStore) -> NoReturn:
        raise self._unavailable("set(nx=True)")

    def remember(self, journal: Journal) -> None:
        """See ``Operation.remember``."""


class Replace(Set):
    """Store a value where there is one; tells whether there was one."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def command(self) -> Command:
        return _REPLACE([raw(self.key)], self.data, px(self.milliseconds))

    def in_memory(self, store: MemoryStore) -> bool:
        return held(store, self.key) is not None and super().in_memory(store)


class Persist(Expire):
    """Remove the expiry of a key; tells whether it had one."""

    __slots__ = ()
    refusal = Refusal.OUTAGE

    def __init__(self, context: OperationContext, key: str) -> None:
        super().__init__(context, key, None)

    def command(self) -> Command:
        return _PERSIST([raw(self.key)])

    def in_memory(self, store: MemoryStore) -> bool:
        if held(store, self.key) is None or store.remaining(self.key) is None:
            return False
        return super().in_memory(store)
