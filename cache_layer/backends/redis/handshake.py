"""Sets new connections up: identifies the server process, and records its connections.

Two events could bring invalidated values back, and both are detected when a connection is made. A
server that restarted from a snapshot, or a replica that was promoted, may hold deleted values: it
is a new process, and its content is not trusted until the alias's keys are dropped from it. And the
network may deliver a timed-out command late: the command does nothing once the server has ended its
connection.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from cache_layer.backends.operations.base import Command, Reply
from cache_layer.backends.redis.errors import WrongServerError, is_refusal
from cache_layer.backends.redis.internals import Connection
from cache_layer.backends.refusals import trials

_QUESTIONS: Final = (("CLIENT", "ID"), ("INFO", "server"), ("INFO", "replication"))
#: Largest number of remembered connections; late commands are on the newest ones.
_MOST: Final = 1000


class OtherServerError(RedisConnectionError, WrongServerError):
    """A server answered that is not the trusted one."""


class ClusterNodeError(RedisConnectionError, WrongServerError):
    """The server is a node of a Redis Cluster."""


#: The server identity whose recovery runs in this thread.
_recovering: ContextVar[ServerIdentity | None] = ContextVar("recovering", default=None)

Steps = Generator[list[Command], list[Reply], None]


class ServerIdentity:
    """The knowledge of one store in one process about its server.

    A server is known by its process and its history: one that was demoted and promoted again is
    another. A server that does not say who it is (a proxy, a user without INFO) is taken for
    always the same.

    Args:
        trust_after_restart: Whether every other server is trusted as well.
        clustered: Whether the server must be a node of a cluster; otherwise it must not be one.
        marks: Returns the keys that name the server without stale keys, one for each keyspace.
        probe_key: A key that the user may write.
        switch_off: Called with the name of a refused feature, and the reply.
    """

    def __init__(
        self,
        *,
        trust_after_restart: bool,
        clustered: bool,
        marks: Callable[[], list[bytes]],
        probe_key: bytes,
        switch_off: Callable[[str, Exception], None],
    ) -> None:
        #: The server whose content is trusted; empty before the first connection.
        self.trusted = ""
        #: The server that recovery connected to.
        self.found = ""
        #: Whether recovery has made that server's content trustworthy: no other may take its place.
        self.prepared = False
        self.trust_after_restart = trust_after_restart
        self._clustered = clustered
        self._marks = marks
        #: What is still to be tried, by the name of the feature.
        self._trials = self._untried = trials(probe_key)
        self._switch_off = switch_off
        self._met = ""
        self._connections: deque[int] = deque(maxlen=_MOST)

    def handshake(self, connection: Connection) -> None:
        """Set up a new connection; ``redis_connect_func`` of synchronous connections."""
        _silence(connection)
        connection.on_connect()
        steps = self._steps()
        with contextlib.suppress(StopIteration):
            commands = next(steps)
            while True:
                connection.send_packed_command(connection.pack_commands(commands))
                replies = []
                for _command in commands:
                    try:
                        replies.append(connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
                commands = steps.send(replies)

    async def ahandshake(self, connection: Connection) -> None:
        """See ``handshake()``."""
        _silence(connection)
        await connection.on_connect()
        steps = self._steps()
        with contextlib.suppress(StopIteration):
            commands = next(steps)
            while True:
                await connection.send_packed_command(connection.pack_commands(commands))
                replies = []
                for _command in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
                commands = steps.send(replies)

    @contextlib.contextmanager
    def recovering(self) -> Iterator[None]:
        """Let this context, and no other, talk to any server, until one is prepared."""
        self.found = self.trusted
        self.prepared = False
        # Who repaired the outage may have changed the rights, too.
        self._untried = self._trials
        token = _recovering.set(self)
        try:
            yield
        finally:
            _recovering.reset(token)

    def connections(self) -> list[int]:
        """Return the ids of the connections made to the process met last."""
        return list(self._connections)

    def _steps(self) -> Steps:
        marks = self._marks()
        untried, self._untried = self._untried, {}
        # Not by GET, whose numbers in Redis's statistics are of values.
        questions = [*_QUESTIONS, *[("GETRANGE", mark, 0, -1) for mark in marks]]
        try:
            replies = yield [*questions, *untried.values()]
        except BaseException:
            self._untried = untried
            raise
        (connection, process, history, *known), tried = _split(replies, len(questions))
        named = zip(untried, tried, strict=True)
        for what, reply in (("CLIENT ID", connection), ("INFO", process), *named):
            if is_refusal(reply):
                self._switch_off(what, reply)
        self._meet(connection, process, history, known)
        server = self._met.encode()
        missing = [mark for mark, found in zip(marks, known, strict=True) if found == b""]
        if missing and server and self._met == self.trusted:
            # From now on a new process can tell this server from another.
            yield [("SET", mark, server) for mark in missing]

    def _meet(
        self, connection: object, process: object, history: object, known: list[object]
    ) -> None:
        if isinstance(process, bytes) and b"redis_mode:cluster" in process and not self._clustered:
            raise ClusterNodeError(
                "it is a node of a Redis Cluster, which needs ClusterConnectionFactory"
            )
        server = _field(process, b"run_id:")
        if server:
            server = f"{server}:{_field(history, b'master_replid:')}"
        if server != self._met:
            # The same ids belong to other clients on another server.
            self._connections.clear()
            self._met = server
        if isinstance(connection, int):
            self._connections.append(connection)
        found = [mark for mark in known if mark and isinstance(mark, bytes)]
        others = {mark.decode("ascii", "replace") for mark in found}
        others.discard(server)
        if self.trust_after_restart:
            self.trusted = server
        elif not self.trusted:
            self.trusted = min(others, default=server) if server else ""
        if _recovering.get() is self and not self.prepared:
            self.found = server
        elif server and not self.trust_after_restart and (server != self.trusted or others):
            raise OtherServerError("another server answers: it restarted, or another was promoted")


def _silence(connection: object) -> None:
    """Keep the client from sending its name and version, which costs two round trips."""
    # The first is the name in newer versions of redis-py, the others are older names.
    for name in ("driver_info", "lib_name", "lib_version"):
        if hasattr(connection, name):
            setattr(connection, name, None)


def _split(replies: list[Reply], number: int) -> tuple[list[Reply], list[Reply]]:
    return replies[:number], replies[number:]


def _field(info: object, name: bytes) -> str:
    if isinstance(info, bytes):
        for line in info.splitlines():
            if line.startswith(name):
                return line.removeprefix(name).decode("ascii", "replace")
    return ""
