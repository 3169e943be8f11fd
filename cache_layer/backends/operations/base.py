"""Every cache operation on given keys, written once for Redis and for memory.

An operation does no I/O. A ``Single`` names one command and reads its reply; any other yields
batches of commands and is sent their replies, of which each may be the exception that Redis
answered with. Transports carry commands to Redis, synchronously or awaited; ``in_memory`` does the
same on the memory store, whose lock the caller holds; ``remember`` tells the journal what Redis
must forget before it is read again, had the operation happened during an outage.
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

#: A call that is awaited or made a task.
Awaited = Coroutine[Any, Any, T]
#: The name of a command and its arguments.
Command = tuple[Any, ...]
#: What Redis answered; an exception where it refused a command of a batch.
Reply = Any
Steps = Generator[list[Command], list[Reply], T]

#: Keys in one command: large enough to be quick, small enough not to hold Redis up.
CHUNK = 500

#: How much longer than its values a tag lives, in milliseconds.
TAG_SURPLUS = 60_000


@dataclasses.dataclass(frozen=True, slots=True)
class OperationContext:
    """What every operation is given beside its own arguments."""

    #: Under which name its metrics are counted.
    namespace: str
    codec: Codec
    #: What is dropped when the journal cannot remember more; None when keys cannot be listed.
    keyspace: Keyspace | None
    #: Whether a caller's key always stands for the same full key. It does with Django's own key
    #: function; any other may depend on more, such as the tenant of a request.
    steady: bool = False
    #: Whether what is read is kept in this process.
    near: bool = False
    #: Whether an outage raises an error, instead of memory answering.
    raises_on_outage: bool = False


def raw(key: str) -> bytes:
    """Return the key as Redis holds it; lone surrogates are kept."""
    return key.encode("utf-8", "surrogatepass")


def raws(keys: Sequence[str]) -> Sequence[str | bytes]:
    """Return keys as they can be given to Redis: where they are ASCII, as they are."""
    return keys if "".join(keys).isascii() else list(map(raw, keys))


def chunks(keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cut a list into pieces for one command each."""
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


def px(milliseconds: int | None) -> int | str:
    """Return an expiry as the scripts want it."""
    return "" if milliseconds is None else milliseconds


def held(store: MemoryStore, key: str) -> bytes | None:
    """Return the encoded value that a key in memory holds, or None."""
    return living(store.read(key), store.read)


def cover(store: MemoryStore, data: bytes | None, milliseconds: int | None) -> None:
    """Let the tags that an envelope in memory names live at least as long as it is to live."""
    for tag in named_tags([data]):
        if store.read(tag) is None or (left := store.remaining(tag)) is None:
            continue
        if milliseconds is None or left < milliseconds + 1000:
            store.expire(tag, None if milliseconds is None else milliseconds + TAG_SURPLUS)


class Refusal(enum.Enum):
    """What it means that Redis refuses an operation's command, to this user or to everybody.

    It is not asked where the command was right and the key's content was not, such as a key of a
    foreign type: then the operation has a result of its own.
    """

    #: Redis cannot be used: memory answers, and what changes is remembered to be replayed.
    OUTAGE = "outage"
    #: The caller gets ``CommandRefusedError``. Memory could not do it in Redis's place, and a later
    #: replay would be refused too.
    ERROR = "error"
    #: The operation gets the reply: it is not needed for a right answer.
    PASSED = "passed"


class Operation(Generic[T]):
    """What all operations have in common."""

    __slots__ = ("context",)
    #: Whether it may change what Redis holds.
    writes: ClassVar[bool] = True
    #: Whether the number of round trips depends on how many keys there are; then the time for
    #: each round trip is limited, not that of the call.
    long: ClassVar[bool] = False
    #: What a refusal means; each operation says so for itself.
    refusal: ClassVar[Refusal]

    context: OperationContext

    def steps(self) -> Steps[T]:
        """Yield batches of commands, receive their replies, return the result."""
        raise TypeError(f"{type(self).__name__} has no steps")

    def in_memory(self, store: MemoryStore) -> T:
        """Do the operation on the memory store; the caller holds its lock."""
        raise TypeError(f"{type(self).__name__} does not work in memory")

    def remember(self, journal: Journal) -> None:
        """Tell the journal what Redis has to forget; reads and leases have nothing to tell."""

    def overwritten(self) -> tuple[str, ...]:
        """Return the keys whose copies the near cache drops, beside what ``remember`` names."""
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
        """Return the result that the reply stands for."""
        raise TypeError(f"{type(self).__name__} has no reply")

    def overwritten(self) -> tuple[str, ...]:
        """See ``Operation.overwritten``; what stores under a lease has nothing to remember."""
        return (self.key,)

    def rejected(self) -> T:
        """Return the result when Redis refuses the command (a key of a foreign type)."""
        self.error()
        return self.parse(None)


class Detour(Exception):  # noqa: N818 - not an error
    """An operation that cannot answer alone, such as a read of an envelope without its tags.

    Args:
        operation: What is to be done in its place.
    """

    def __init__(self, operation: Operation[Any]) -> None:
        super().__init__()
        self.operation = operation


class Read(Single[T]):
    """A ``Single`` that is answered by what some keys hold and by nothing else.

    One that writes nothing is a command of Redis's own, no script.
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
        """Return True and the result for what the keys of ``reads`` hold, without any I/O.

        False when that is not enough; then nothing was counted.
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
