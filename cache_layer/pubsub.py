"""PubSub: short texts from process to process, over Redis, that may be lost.

They are for readers who look for themselves now and then, and spare them the wait until they look
again. Telling never waits and never raises; while nobody listens it costs one message a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from cache_layer.backends import ResilientCache
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import Operation, Steps, chunks
from cache_layer.backends.operations.lua import Script
from cache_layer.backends.redis.errors import as_unavailable
from cache_layer.interface import resilient_cache

logger = logging.getLogger("cache_layer")

#: Seconds without a notice after one that nobody heard, or that could not be sent.
SILENCE: Final = 1.0
#: PubSub that wait to be sent; more are lost.
MOST: Final = 10_000


class PubSub:
    """The notices of one name, between the processes that use the alias of the cache layer.

    Without a Redis there are none. Make one of these for a name, in a module: it lives as long as
    the process.
    """

    _teller: threading.Thread | None

    def __init__(self, name: str) -> None:
        self._name = name
        self._after_fork()
        os.register_at_fork(after_in_child=self._after_fork)

    def tell(self, notice: str) -> None:
        """Send a notice to those who listen, in this process too. Equal ones may become one."""
        if time.monotonic() < self._silent_until or _redis() is None:
            return
        with self._lock:
            if len(self._waiting) < MOST:
                self._waiting[notice] = None
            if self._teller is None:
                teller = threading.Thread(
                    target=self._send_for_ever, name="cache-layer-notices", daemon=True
                )
                # The interpreter may be about to end.
                with contextlib.suppress(RuntimeError):
                    teller.start()
                    self._teller = teller
        self._told.set()

    def listen(self, hear: Callable[[str], Any]) -> Callable[[], None]:
        """Call *hear* with each notice, in a thread of its own; return what ends that.

        What is told while the connection to Redis is broken is not heard. What *hear* raises is
        logged. While nothing is told, it costs a PING a second, by which a dead connection is
        noticed.
        """
        ended = threading.Event()
        if _redis() is not None:
            threading.Thread(
                target=self._hear, args=(hear, ended), name="cache-layer-listener", daemon=True
            ).start()
        return ended.set

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._told = threading.Event()
        self._waiting: dict[str, None] = {}
        self._silent_until = 0.0
        self._teller = None

    def _send_for_ever(self) -> None:
        while self._told.wait():
            self._told.clear()
            with self._lock:
                notices, self._waiting = self._waiting, {}
            try:
                backend = _redis()
                heard = backend and backend.run(_Tell(backend, self._channel(backend), notices))
            except Exception:
                logger.exception("PubSub could not be sent.")
                heard = 0
            if not heard:
                self._silent_until = time.monotonic() + SILENCE

    def _hear(self, hear: Callable[[str], Any], ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                self._hear_until_broken(hear, ended)
            except Exception as error:
                if as_unavailable(error) is None:
                    logger.exception("Listening to notices failed; it begins again.")
                ended.wait(SILENCE)
                if backend := _redis():
                    # The circuit learns of the outage, and so of its end.
                    backend.run(_Tell(backend, "", ()))

    def _hear_until_broken(self, hear: Callable[[str], Any], ended: threading.Event) -> None:
        backend = _redis()
        if backend is None:
            ended.wait(SILENCE)
            return
        client = backend.state.transport.client.get_client(write=True)  # type: ignore[attr-defined]
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(self._channel(backend))
            asked = False
            while not ended.is_set():
                message = subscription.get_message(timeout=SILENCE)
                if message is None:
                    # Nothing was said, or nothing arrives any more: the other end may have gone
                    # without a word.
                    if asked:
                        raise TimeoutError("Redis does not answer the one who listens to it")
                    subscription.ping()
                    asked = True
                    continue
                asked = False
                if message["type"] == "message":
                    try:
                        hear(message["data"].decode("utf-8", "replace"))
                    except Exception:
                        logger.exception("What listens to notices failed.")

    def _channel(self, backend: ResilientCache) -> str:
        return f"{backend.key_prefix}:notices:{self._name}"


# channel, notices -> how many heard them. A user of Redis may have all keys and no channel (that
# is Redis's default for users): then there are no notices, and the cache is as well as before.
_PUBLISH = Script("""
local heard = 0
for i = 2, #ARGV do
  local reply = redis.pcall('PUBLISH', ARGV[1], ARGV[i])
  if type(reply) ~= 'number' then break end
  heard = heard + reply
end
return heard
""")


class _Tell(Operation[int]):
    """Publish notices; return how many listeners there were for them."""

    __slots__ = ("channel", "notices")
    writes = False
    long = True

    def __init__(self, backend: ResilientCache, channel: str, notices: Iterable[str]) -> None:
        self.context = backend.context
        self.channel = channel
        self.notices = notices

    def steps(self) -> Steps[int]:
        parts = chunks(list(self.notices))
        commands = [_PUBLISH((), self.channel, *part) for part in parts]
        replies = yield commands or [("PING",)]
        return sum(reply for reply in replies if isinstance(reply, int))

    def in_memory(self, store: MemoryStore) -> int:
        return 0


def _redis() -> ResilientCache | None:
    """Return the backend of the cache layer's alias, if it has a Redis."""
    try:
        backend = resilient_cache()
    except ImproperlyConfigured:
        return None
    return backend if hasattr(backend.state, "transport") else None
