"""Listens to what changes in Redis, for the near cache of one alias in one process."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_layer.backends.near.cache import NearCache
from cache_layer.backends.redis.resp import NOTHING, is_push, make_reader, pack
from cache_layer.backends.redis.transport import Transport
from cache_layer.conf import settings
from cache_layer.keyspace import Keyspace

logger = logging.getLogger("cache_layer")

#: Seconds between two tries at a Redis that refuses to tell what changes.
_REFUSED_PAUSE: Final = 10.0


class Tracker(threading.Thread):
    """A daemon thread with a connection of its own, to which Redis sends the names of changed keys.

    The near cache is on while this is known to hear everything: from the moment that Redis agreed
    to tell, for as long as each ``PING`` is answered in time. What is heard before an answer
    happened before it, so nothing in the near cache is older than an interval and a timeout.
    """

    def __init__(
        self,
        near: NearCache,
        transport: Transport,
        usable: Callable[[], bool],
        scopes: set[Keyspace],
    ) -> None:
        super().__init__(name="cache-layer-tracker", daemon=True)
        #: Whose keys it listens to.
        self.scopes = frozenset(scopes)
        self._near = near
        self._transport = transport
        self._usable = usable
        self._stopped = threading.Event()
        self._socket: Any = None
        self._refused = ""

    def stop(self) -> None:
        """End it, and turn the near cache off."""
        self._stopped.set()
        self._near.turn_off()
        listening = self._socket
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Listen, and begin again whenever that ends."""
        while not self._stopped.is_set():
            pause = settings.PROBE_INTERVAL
            if self._usable():
                try:
                    self._listen()
                except ResponseError as error:
                    self._warn_once(error)
                    pause = _REFUSED_PAUSE
                except Exception as error:  # noqa: BLE001 - the thread must not die.
                    logger.debug("Listening for changed keys ended: %r", error)
            self._stopped.wait(pause)

    def _listen(self) -> None:
        connection = self._transport.listener()
        try:
            connection.connect()
            self._socket = connection._sock
            self._follow(connection._sock)
        finally:
            if not self._stopped.is_set():
                # Another tracker may have turned it on again by now, if this one was stopped.
                self._near.turn_off()
            self._socket = None
            connection.disconnect()

    def _follow(self, listening: Any) -> None:
        reader = make_reader()
        interval = settings.NEAR_PING_INTERVAL
        patience = self._transport.timeout or interval
        asked = time.monotonic()
        listening.settimeout(patience)
        listening.sendall(pack(self._command()))
        #: When the question was asked whose answer is awaited; None while none is.
        awaited: float | None = asked
        while not self._stopped.is_set():
            now = time.monotonic()
            wait = asked + (patience if awaited else interval) - now
            if wait <= 0:
                if awaited:
                    raise RedisTimeoutError("Redis does not answer the one who listens to it")
                if not (self._usable() and self._near.on):
                    return
                asked = awaited = now
                listening.sendall(pack(("PING",)))
                continue
            listening.settimeout(wait)
            try:
                data = listening.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise RedisConnectionError("Connection closed by server.")
            reader.feed(data)
            if self._hear(reader):
                if awaited is None:
                    raise RedisConnectionError("Redis answered a question that was not asked")
                self._proven(awaited + interval + patience)
                awaited = None

    def _hear(self, reader: Any) -> bool:
        """Take in what is there; return whether the question was answered."""
        answered = False
        while (reply := reader.gets()) is not NOTHING:
            if not is_push(reply):
                if isinstance(reply, Exception):
                    raise reply
                answered = True
            elif reply[0] == b"invalidate":
                if reply[1] is None:
                    self._near.drop_all()
                else:
                    self._near.drop(filter(None, map(_text, reply[1])))
        return answered

    def _proven(self, until: float) -> None:
        if self._stopped.is_set():
            return
        if self._near.on:
            self._near.until = until
        else:
            self._refused = ""
            self._near.turn_on(until, lambda: self._usable() and not self._stopped.is_set())

    def _command(self) -> tuple[Any, ...]:
        every = sorted({literal_start(keyspace.pattern) for keyspace in self.scopes})
        # Redis refuses prefixes of which one begins with another.
        prefixes = [
            prefix
            for prefix in every
            if not any(prefix != other and prefix.startswith(other) for other in every)
        ]
        options = [part for prefix in prefixes if prefix for part in ("PREFIX", prefix)]
        return ("CLIENT", "TRACKING", "ON", "BCAST", *options)

    def _warn_once(self, error: Exception) -> None:
        if self._refused != str(error):
            self._refused = str(error)
            logger.warning(
                "The near cache stays off, because Redis does not tell which keys change: %s", error
            )


def _text(key: bytes) -> str | None:
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # No key of ours: those are made of text.
        return None


def literal_start(pattern: str) -> bytes:
    """Return what everything that matches a pattern begins with."""
    text = []
    characters = iter(pattern)
    for character in characters:
        if character in "*?[":
            break
        text.append(next(characters, "") if character == "\\" else character)
    return "".join(text).encode("utf-8", "surrogatepass")
