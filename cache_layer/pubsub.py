"""Publishes short texts from one process to the others over Redis. Texts may be lost.

It is for readers who poll another source: a text tells them to poll now. Publishing never waits and
never raises; while nobody subscribes, at most one message a second is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from cache_layer.backends import Channel
from cache_layer.interface import resilient_cache

logger = logging.getLogger("cache_layer")

#: Seconds without publishing after a text that nobody received, or that could not be sent.
SILENCE: Final = 1.0
#: Largest number of texts that wait to be sent; further texts are lost.
MAX_WAITING: Final = 10_000


class PubSub:
    """A channel between the processes that use the alias named by ``CACHE_LAYER_ALIAS``.

    Without a Redis nothing is published. Make one instance for each name, in a module: the instance
    lives as long as the process.

    Args:
        name: The name of the channel.
    """

    _publisher: threading.Thread | None

    def __init__(self, name: str) -> None:
        self._name = name
        self._after_fork()
        os.register_at_fork(after_in_child=self._after_fork)

    def publish(self, text: str) -> None:
        """Send a text to all subscribers, in this process too.

        Equal texts that wait to be sent are sent once.
        """
        if time.monotonic() < self._silent_until or self._channel() is None:
            return
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[text] = None
            if self._publisher is None:
                publisher = threading.Thread(
                    target=self._publish_for_ever, name="cache-layer-publisher", daemon=True
                )
                # The interpreter may be about to end.
                with contextlib.suppress(RuntimeError):
                    publisher.start()
                    self._publisher = publisher
        self._published.set()

    def subscribe(self, handler: Callable[[str], object]) -> Callable[[], None]:
        """Call the handler with each text, in a thread of its own.

        Texts published while the connection to Redis is broken are lost. Exceptions of the handler
        are logged. While nothing is published, a PING each second detects a dead connection.

        Args:
            handler: Called with each text.

        Returns:
            A function that ends the subscription.
        """
        ended = threading.Event()
        if self._channel() is not None:
            threading.Thread(
                target=self._receive,
                args=(handler, ended),
                name="cache-layer-subscriber",
                daemon=True,
            ).start()
        return ended.set

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._published = threading.Event()
        self._waiting: dict[str, None] = {}
        self._silent_until = 0.0
        self._publisher = None

    def _publish_for_ever(self) -> None:
        while self._published.wait():
            self._published.clear()
            with self._lock:
                texts, self._waiting = self._waiting, {}
            received = 0
            try:
                if channel := self._channel():
                    received = channel.publish(texts)
            except Exception:
                logger.exception("Publishing failed.")
            if not received:
                self._silent_until = time.monotonic() + SILENCE

    def _receive(self, handler: Callable[[str], object], ended: threading.Event) -> None:
        def handle(text: str) -> None:
            try:
                handler(text)
            except Exception:
                logger.exception("A subscriber failed.")

        while not ended.is_set():
            channel = self._channel()
            try:
                if channel is None:
                    ended.wait(SILENCE)
                else:
                    channel.receive(handle, ended, SILENCE)
            except Exception as error:
                if not Channel.is_outage(error):
                    logger.exception("Receiving failed; it begins again.")
                ended.wait(SILENCE)
                if channel is not None:
                    # The circuit learns of the outage, and so of its end.
                    channel.publish(())

    def _channel(self) -> Channel | None:
        channel = Channel(resilient_cache(), self._name)
        return channel if channel.exists else None
