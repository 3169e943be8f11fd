"""Sets new connections up: which server process answers, and which connections are ours.

Two things could bring back what was invalidated, and both are seen where a connection is made. A
server that restarted from a snapshot, or a replica that was promoted, may hold what was deleted
before: it is a new process, and its content is not trusted until the alias's keys are dropped from
it. And a command that timed out may be delivered late by a network that kept it: it does nothing
once the server has ended the connection it comes over.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

_QUESTIONS: Final = (("CLIENT", "ID"), ("INFO", "server"))
#: Connections remembered; what could be delivered late is on the newest.
_MOST: Final = 1000


class OtherServerError(RedisConnectionError):
    """A server process answered that is not the trusted one."""


class ClusterNodeError(RedisConnectionError):
    """The server is a node of a Redis Cluster."""


class ServerIdentity:
    """What one store in one process knows of its server.

    A server that does not say who it is (a proxy, an access list without INFO) is taken for always
    the same.

    Args:
        trust_after_restart: whether every other server is trusted as well.
        clustered: whether the server has to be a node of a cluster; otherwise it must not be.
    """

    def __init__(self, *, trust_after_restart: bool, clustered: bool = False) -> None:
        #: The process whose content is trusted; empty before the first connection.
        self.trusted = ""
        #: The process that recovery connected to.
        self.found = ""
        self._trust_after_restart = trust_after_restart
        self._clustered = clustered
        self._met = ""
        self._recovery: int | None = None
        self._connections: deque[int] = deque(maxlen=_MOST)

    def handshake(self, connection: Any) -> None:
        """Set up a new connection; ``redis_connect_func`` of synchronous connections."""
        _silence(connection)
        connection.on_connect()
        connection.send_packed_command(connection.pack_commands(_QUESTIONS))
        answers = []
        for _question in _QUESTIONS:
            try:
                answers.append(connection.read_response())
            except ResponseError as error:
                answers.append(error)
        self._meet(*answers)

    async def ahandshake(self, connection: Any) -> None:
        """See ``handshake()``."""
        _silence(connection)
        await connection.on_connect()
        await connection.send_packed_command(connection.pack_commands(_QUESTIONS))
        answers = []
        for _question in _QUESTIONS:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        self._meet(*answers)

    @contextlib.contextmanager
    def recovering(self) -> Iterator[None]:
        """Let this thread, and no other, talk to whatever server process answers."""
        self.found = self.trusted
        self._recovery = threading.get_ident()
        try:
            yield
        finally:
            if self._recovery == threading.get_ident():
                self._recovery = None

    def connections(self) -> list[int]:
        """Return the ids of the connections made to the process met last."""
        return list(self._connections)

    def _meet(self, connection: Any, info: Any) -> None:
        if isinstance(info, bytes) and b"redis_mode:cluster" in info and not self._clustered:
            raise ClusterNodeError(
                "it is a node of a Redis Cluster, which needs ClusterConnectionFactory"
            )
        process = _run_id(info)
        if process != self._met:
            # The ids of one server are other clients' on another.
            self._connections.clear()
            self._met = process
        if isinstance(connection, int):
            self._connections.append(connection)
        if not self.trusted or self._trust_after_restart:
            self.trusted = process
        if threading.get_ident() == self._recovery:
            self.found = process
        elif process and process != self.trusted:
            raise OtherServerError(
                "another server process answers: it restarted, or another was promoted"
            )


def _silence(connection: Any) -> None:
    """Keep the client from telling its name and version, which costs two round trips."""
    # The first is what newer versions of redis-py call it, the others what it was called before.
    for name in ("driver_info", "lib_name", "lib_version"):
        if hasattr(connection, name):
            setattr(connection, name, None)


def _run_id(info: Any) -> str:
    if not isinstance(info, bytes):
        return ""
    for line in info.splitlines():
        if line.startswith(b"run_id:"):
            return line.removeprefix(b"run_id:").decode("ascii", "replace")
    return ""
