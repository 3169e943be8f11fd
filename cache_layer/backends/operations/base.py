"""The base classes of cache operations, each written once for Redis and for memory.

An operation does no I/O. A ``Single`` names one command and reads its reply; any other yields
batches of commands and receives their replies, each of which may be an exception that Redis
answered. Transports carry commands to Redis, synchronously or awaited; ``in_memory`` does the same
on the memory store, whose lock the caller holds; ``remember`` tells the journal which keys Redis
must drop before anyone reads from it, if the operation ran during an outage.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Coroutine, Generator, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from cache_layer.backends.encoding import Codec, living, named_tags
from cache_layer.backends.memory import MemoryStore
from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace
from cache_layer.metrics import record

T = TypeVar("T")

#: A coroutine, to be awaited or made a task.
Awaited = Coroutine[Any, Any, T]
#: The name of a command and its arguments.
Command = tuple[Any, ...]
#: An answer of Redis; an exception if Redis refused a command of a batch.
Reply = Any
Steps = Generator[list[Command], list[Reply], T]

#: Number of keys in one command: large enough to be fast, small enough not to block Redis.
CHUNK = 500

#: How much longer than its values a tag lives, in milliseconds.
TAG_SURPLUS = 60_000


@dataclasses.dataclass(frozen=True, slots=True)
class OperationContext:
    """The part of an alias that every operation needs beside its own arguments."""

    #: The namespace under which metrics are counted.
    namespace: str
    codec: Codec
    #: The keys to drop when the journal is full; None if keys cannot be listed.
    keyspace: Keyspace | None
    #: Whether a caller's key always stands for the same full key. It does with Django's own key
    #: function; any other may depend on more, such as the tenant of a request.
    steady: bool = False
    #: Whether values that are read are kept in the near cache.
    near: bool = False
    #: Whether an outage raises an error; otherwise memory answers.
    raises_on_outage: bool = False


def raw(key: str) -> bytes:
    """Return the bytes of a key; lone surrogates are kept."""
    return key.encode("utf-8", "surrogatepass")


def raws(keys: Sequence[str]) -> Sequence[str | bytes]:
    """Return keys as bytes, or unchanged if all of them are ASCII."""
    return keys if "".join(keys).isascii() else list(map(raw, keys))


def chunks(keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cut a list into pieces for one command each."""
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


def px(milliseconds: int | None) -> int | str:
    """Return an expiry as an argument of the scripts: ``""`` for none."""
    return "" if milliseconds is None else milliseconds


def held(store: MemoryStore, key: str) -> bytes | None:
    """Return the encoded value that a key in memory holds, or None."""
    return living(store.read(key), store.read)


def cover(store: MemoryStore, data: bytes | None, milliseconds: int | None) -> None:
    """Extend the expiry of the tags of an envelope in memory to at least that of the envelope.

    The envelope is valid, so none of its tags is missing.
    """
    for tag in named_tags([data]):
        left = store.remaining(tag)
        if left is not None and (milliseconds is None or left < milliseconds + 1000):
            store.expire(tag, None if milliseconds is None else milliseconds + TAG_SURPLUS)


class Refusal(enum.Enum):
    """The effect if Redis refuses an operation's command, to this user or to everybody.

    It does not matter if the command was right and the key's content was not, such as a key of a
    foreign type: then the operation has a result for that.
    """

    #: Redis cannot be used: memory answers, and the journal remembers changes for the replay.
    OUTAGE = "outage"
    #: The caller gets ``CommandRefusedError``. Memory could not do it in Redis's place, and a later
    #: replay would be refused too.
    ERROR = "error"
    #: The operation gets the reply: it is not needed for a right answer.
    PASSED = "passed"


class Operation(Generic[T]):
    """The base class of all operations."""

    __slots__ = ("context",)
    #: Whether the operation may change keys in Redis.
    writes: ClassVar[bool] = True
    #: Whether the number of round trips grows with the number of keys; then each round trip has a
    #: time limit, and not the call.
    long: ClassVar[bool] = False
    #: Whether it needs keys to be found by pattern.
    lists_keys: ClassVar[bool] = False
    #: The effect of a refusal; each operation defines its own.
    refusal: ClassVar[Refusal]

    context: OperationContext

    def steps(self) -> Steps[T]:
        """Yield batches of commands, receive their replies, return the result."""
        raise TypeError(f"{type(self).__name__} has no steps")

    def in_memory(self, store: MemoryStore) -> T:
        """Run the operation on the memory store; the caller holds its lock."""
        raise TypeError(f"{type(self).__name__} does not work in memory")

    def remember(self, journal: Journal) -> None:
        """Tell the journal which keys Redis has to drop; reads and leases change none."""

    def overwritten(self) -> tuple[str, ...]:
        """Return the keys whose copies the near cache drops, beside those of ``remember``."""
        return ()

    def error(self) -> None:
        """Count that Redis refused the operation, or that a value could not be read."""
        record(self.context.namespace, "errors")


class Single(Operation[T]):
    """An operation of one command on one key."""

    __slots__ = ("key",)

    def __init__(self, context: OperationContext, key: str) -> None:
        self.context = context
        self.key = key

    def command(self) -> Command:
        """Return the command."""
        raise TypeError(f"{type(self).__name__} has no command")

    def parse(self, reply: Reply) -> T:
        """Return the result, made from the reply of Redis."""
        raise TypeError(f"{type(self).__name__} has no reply")

    def overwritten(self) -> tuple[str, ...]:
        """See ``Operation.overwritten``; an operation under a lease has nothing to remember."""
        return (self.key,)

    def rejected(self) -> T:
        """Return the result if Redis refuses the command because of the key's type."""
        self.error()
        return self.parse(None)


class Detour(Exception):  # noqa: N818 - not an error
    """An operation needs another one to answer, such as a read of an envelope without its tags.

    Args:
        operation: The operation to run in its place.
    """

    def __init__(self, operation: Operation[Any]) -> None:
        self.operation = operation


class Read(Single[T]):
    """A ``Single`` whose result depends only on the bytes of some keys.

    Unless it writes, its command is one of Redis, not a script.
    """

    __slots__ = ()
    writes = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The full keys whose bytes decide the answer."""
        return (self.key,)

    def overwritten(self) -> tuple[str, ...]:
        """See ``Operation.overwritten``."""
        return ()

    def answer(self, held: Sequence[bytes | None]) -> tuple[bool, T | None]:
        """Return True and the result, from the bytes of the keys of ``reads``, without any I/O.

        False if these bytes are not enough; then nothing was counted.
        """
        try:
            return True, self.parse(held[0])
        except Detour:
            return False, None


class Writing(Single[T]):
    """A ``Single`` that changes its key."""

    __slots__ = ()

    def remember(self, journal: Journal) -> None:
        """See ``Operation.remember``."""
        journal.add_key(self.key, self.context.keyspace)
