"""The state of the model: one Redis, two processes, three clients. Only data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Self

#: Bits of sets of keys: that of the result, and that of its tag.
KEY, TAG = 1, 2

A, B = 0, 1


class Circuit:
    """The states of ``cache_layer.breaker.Breaker``."""

    CLOSED = "closed"
    OPEN = "open"
    DRAINING = "draining"


class Lease(NamedTuple):
    """What a claim leaves at the key: a random token and that of the tag."""

    token: int
    tag: int
    #: A tuple that equals no value's.
    kind: str = "lease"


class Value(NamedTuple):
    """What a fill or a set stores: the database's version, and the token of the tag."""

    version: int
    tag: int


Content = Lease | Value | None


def _renamed(content: Any, names: dict[int, int]) -> Any:
    if content is None:
        return None
    tag = names.setdefault(content.tag, len(names))
    if type(content) is Lease:
        return Lease(names.setdefault(content.token, len(names)), tag)
    return Value(content.version, tag)


class _Part:
    """Something that is frozen into a tuple, by which states are compared, and thawed again."""

    freeze: ClassVar[Callable[[Self], tuple[Any, ...]]]

    def __init_subclass__(cls) -> None:
        cls.freeze = attrgetter(*cls.__annotations__)


@dataclasses.dataclass(slots=True)
class Client(_Part):
    """One thread or task, and where in its program it stands."""

    process: int
    #: How many items of its program are done.
    done: int = 0
    #: The next command, or what it waits for.
    at: str = ""
    #: The newest version that was invalidated when its read began.
    least: int = 0
    #: The lease that it holds or shares.
    lease: Lease | None = None
    version: int = 0
    #: What it took from the journal and has to replay.
    replay: int = 0
    #: Its invalidation was carried out in memory, and ends with that replay.
    ending: bool = False
    #: It was cancelled and only tidies up.
    cancelled: bool = False
    #: Its pending read by the near cache: of the key and of the tag.
    pending: tuple[int, int] = (0, 0)
    #: What Redis answered to that.
    reply: tuple[Content, int] = (None, 0)


@dataclasses.dataclass(slots=True)
class Process(_Part):
    """One process: its circuit, journal, memory, near cache and recovery."""

    circuit: str = Circuit.CLOSED
    journal: int = 0
    #: The server that it trusts; 0 before the first connection.
    trusted: int = 1
    #: The memory side.
    key: Content = None
    tag: int = 0
    #: The recovery's next step, the server it met last, and the one it purges.
    recovery: str = ""
    found: int = 0
    purging: int = 0
    taken: int = 0
    #: The newest version invalidated in here, or in Redis while that was read.
    floor: int = 0
    #: The near cache: whether it is on, its copies, the pending reads.
    near: bool = False
    near_key: Content = None
    near_tag: int = 0
    pending_key: int = 0
    pending_tag: int = 0
    #: Reports of changes that are on their way; LOST: they never arrive.
    unreported: int = 0
    near_floor: int = 0
    #: Whether its outage is still to come (2), lasts (1), or is over.
    outage: int = 2


#: In the place of reports that a broken connection will not bring.
LOST = 4


@dataclasses.dataclass(slots=True)
class Shared(_Part):
    """The database, Redis, its snapshot, the network, and what may still happen."""

    database: int = 0
    #: The newest version whose invalidation reached Redis.
    reached: int = 0
    server: int = 1
    key: Content = None
    tag: int = 0
    #: The server that the clean mark names; 0: there is none.
    mark: int = 1
    snapshot: tuple[Content, int, int] = (None, 0, 1)
    #: A command that the network holds: the process, what it asks for, lease and version.
    late: tuple[int, str, Lease | None, int] | None = None
    restarts: int = 0
    saves: int = 0
    evictions: int = 0
    cancellations: int = 0


Frozen = tuple[tuple[Any, ...], ...]


class World:
    """A whole state, to be changed."""

    __slots__ = ("clients", "processes", "result", "shared", "stale")

    def __init__(self, shared: Shared, processes: list[Process], clients: list[Client]) -> None:
        self.shared = shared
        self.processes = processes
        self.clients = clients
        #: What was served although it was invalidated, and what was to be served at least.
        self.stale: tuple[int, int] | None = None
        #: What the last command found or did: a version, True, or None and False for nothing.
        self.result: int | bool | None = None

    def freeze(self) -> Frozen:
        self._rename_tokens()
        return (
            Shared.freeze(self.shared),
            *[Process.freeze(process) for process in self.processes],
            *[Client.freeze(client) for client in self.clients],
        )

    def _rename_tokens(self) -> None:
        """Number the tokens in the order of where they stand.

        Tokens are random, so states that differ in the numbers alone are the same.
        """
        names = {0: 0}
        shared = self.shared
        shared.tag = names.setdefault(shared.tag, len(names))
        shared.key = _renamed(shared.key, names)
        key, tag, mark = shared.snapshot
        tag = names.setdefault(tag, len(names))
        shared.snapshot = _renamed(key, names), tag, mark
        for process in self.processes:
            process.tag = names.setdefault(process.tag, len(names))
            process.key = _renamed(process.key, names)
            process.near_tag = names.setdefault(process.near_tag, len(names))
            process.near_key = _renamed(process.near_key, names)
        for client in self.clients:
            client.lease = _renamed(client.lease, names)
            held, tag = client.reply
            client.reply = _renamed(held, names), names.setdefault(tag, len(names))
        if shared.late is not None:
            process_, what, lease, version = shared.late
            shared.late = process_, what, _renamed(lease, names), version

    @classmethod
    def thaw(cls, frozen: Frozen) -> World:
        shared, a, b, *clients = frozen
        return cls(Shared(*shared), [Process(*a), Process(*b)], [Client(*each) for each in clients])

    def fresh_token(self, other: int = 0) -> int:
        """Return the least number that no token in this state is: states that differ in the
        names of their tokens alone are fewer by that."""
        shared = self.shared
        used = {other}
        contents: list[Content] = [shared.key, shared.snapshot[0]]
        used.update((shared.tag, shared.snapshot[1]))
        for process in self.processes:
            contents += (process.key, process.near_key)
            used.update((process.tag, process.near_tag))
        for client in self.clients:
            contents += (client.lease, client.reply[0])
            used.add(client.reply[1])
        if shared.late is not None:
            contents.append(shared.late[2])
        for content in contents:
            if content is not None:
                used.add(content.tag)
                if type(content) is Lease:
                    used.add(content.token)
        return next(number for number in range(1, 99) if number not in used)
