"""Listens to Redis's reports of changed keys, for the near cache of one store."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from hiredis import Reader
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_layer.backends.near.cache import NearCache
from cache_layer.backends.operations.base import Command, raw
from cache_layer.backends.redis import internals
from cache_layer.backends.redis.errors import is_refusal
from cache_layer.backends.redis.internals import Connection
from cache_layer.backends.redis.resp import NOTHING, Push, make_reader, pack
from cache_layer.backends.redis.transport import Transport
from cache_layer.conf import settings
from cache_layer.keyspace import Keyspace

logger = logging.getLogger("cache_layer")

#: Seconds between two attempts to listen, if Redis refuses to report changes.
_REFUSED_PAUSE: Final = 10.0


class Tracking:
    """Keeps one ``Tracker`` for all keyspaces whose reads the near cache keeps.

    Args:
        near: The near cache.
        transport: The connections to Redis.
        is_usable: Tells whether Redis is to be asked at all.
        switch_off: Called with the name of the feature and the reply, if Redis refuses to report.
    """

    def __init__(
        self,
        near: NearCache,
        transport: Transport,
        is_usable: Callable[[], bool],
        switch_off: Callable[[str, Exception], None],
    ) -> None:
        self._near = near
        self._transport = transport
        self._is_usable = is_usable
        self._switch_off = switch_off
        self._inherited: list[Tracker | None] = []
        self._begin()

    def _begin(self) -> None:
        self._tracker: Tracker | None = None
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def is_used(self) -> bool:
        """Whether this process has listened to changes."""
        return self._tracker is not None

    def covers(self, keyspace: Keyspace) -> bool:
        """Return whether changes of a keyspace are reported. If not, begin to listen to them."""
        tracker = self._tracker
        if tracker is not None and keyspace in tracker.keyspaces:
            return True
        with self._lock:
            before = self._tracker
            if self._stopped or (before is not None and keyspace in before.keyspaces):
                return False
            keyspaces = {keyspace, *(before.keyspaces if before is not None else ())}
            if before is not None:
                before.stop()
            tracker = Tracker(
                self._near, self._transport, self._is_usable, self._switch_off, keyspaces
            )
            # The interpreter may be about to end.
            with contextlib.suppress(RuntimeError):
                tracker.start()
                self._tracker = tracker
        return False

    def stop(self) -> None:
        """End the thread, and turn the near cache off."""
        with self._lock:
            self._stopped = True
            tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.stop()
            tracker.join(5)

    def after_fork(self) -> None:
        """Reset in a forked child.

        A reference keeps the parent's tracker from being collected, because its socket is the
        parent's.
        """
        self._near.after_fork()
        self._inherited.append(self._tracker)
        self._begin()


class Tracker(threading.Thread):
    """A daemon thread with a connection of its own, to which Redis sends the names of changed keys.

    The near cache is on while the thread is known to receive every report: from the moment that
    Redis agreed to send them, for as long as each sign of life is answered in time. A report
    received before an answer was sent before it, so no entry is older than an interval and a
    timeout. On a cluster, the sign of life also shows that the server still owns the keys.
    """

    def __init__(
        self,
        near: NearCache,
        transport: Transport,
        is_usable: Callable[[], bool],
        switch_off: Callable[[str, Exception], None],
        keyspaces: set[Keyspace],
    ) -> None:
        super().__init__(name="cache-layer-tracker", daemon=True)
        self.keyspaces = frozenset(keyspaces)
        self._near = near
        self._transport = transport
        self._is_usable = is_usable
        self._switch_off = switch_off
        self._stopped = threading.Event()
        self._socket: Connection = None

    def stop(self) -> None:
        """End the thread, and turn the near cache off."""
        self._stopped.set()
        self._near.turn_off()
        listening = self._socket
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Listen until stopped, and begin again whenever the connection ends."""
        while not self._stopped.is_set():
            pause = settings.PROBE_INTERVAL
            if self._is_usable():
                try:
                    self._listen()
                # The thread must not die.
                except Exception as error:  # noqa: BLE001
                    if is_refusal(error):
                        self._switch_off("CLIENT TRACKING", error)
                        pause = _REFUSED_PAUSE
                    else:
                        logger.debug("Listening for changed keys ended: %r", error)
            self._stopped.wait(pause)

    def _listen(self) -> None:
        connection = self._transport.listener()
        if not internals.are_known(connection, internals.SYNC):
            # Redis can report nothing, now or later.
            self._stopped.set()
            return
        try:
            connection.connect()
            self._socket = connection._sock
            self._follow(connection._sock)
        finally:
            if not self._stopped.is_set():
                # If this tracker was stopped, another may have turned the cache on again by now.
                self._near.turn_off()
            self._socket = None
            connection.disconnect()

    def _follow(self, listening: Connection) -> None:
        reader = make_reader()
        interval = settings.NEAR_PING_INTERVAL
        timeout = self._transport.timeout or interval
        asked = time.monotonic()
        listening.settimeout(timeout)
        listening.sendall(pack(self._command()))
        #: The time of the question that is not answered yet; None if there is none.
        unanswered: float | None = asked
        is_first = True
        while not self._stopped.is_set():
            now = time.monotonic()
            wait = asked + (timeout if unanswered else interval) - now
            if wait <= 0:
                if unanswered:
                    raise RedisTimeoutError("Redis does not answer who listens for changes")
                if not (self._is_usable() and self._near.on):
                    return
                asked = unanswered = now
                listening.sendall(pack(self._transport.sign_of_life))
                continue
            listening.settimeout(wait)
            try:
                data = listening.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise RedisConnectionError("Connection closed by server.")
            reader.feed(data)
            if self._receive(reader):
                if unanswered is None:
                    raise RedisConnectionError("Redis answered a question that was not asked")
                if not (is_first or self._near.on):
                    # An outage turned it off meanwhile; another server may own the keys by now.
                    return
                self._extend(unanswered + interval + timeout)
                unanswered = None
                is_first = False

    def _receive(self, reader: Reader) -> bool:
        """Handle the received reports; return whether the question was answered."""
        answered = False
        while (reply := reader.gets()) is not NOTHING:
            if type(reply) is not Push:
                if isinstance(reply, Exception):
                    raise reply
                answered = True
            elif reply[0] == b"invalidate":
                if reply[1] is None:
                    self._near.drop_all()
                else:
                    self._near.drop(filter(None, map(_text, reply[1])))
        return answered

    def _extend(self, until: float) -> None:
        if self._stopped.is_set():
            return
        if self._near.on:
            self._near.until = until
        else:
            self._near.turn_on(until, lambda: self._is_usable() and not self._stopped.is_set())

    def _command(self) -> Command:
        every = sorted({raw(keyspace.start) for keyspace in self.keyspaces})
        # Redis refuses prefixes of which one begins with another.
        prefixes = [
            prefix
            for prefix in every
            if not any(prefix != other and prefix.startswith(other) for other in every)
        ]
        options = [part for prefix in prefixes if prefix for part in ("PREFIX", prefix)]
        return ("CLIENT", "TRACKING", "ON", "BCAST", *options)


def _text(key: bytes) -> str | None:
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # Not a key of the cache: those are text.
        return None
