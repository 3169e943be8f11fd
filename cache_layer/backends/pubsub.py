"""The Redis half of publish/subscribe: one channel of one alias."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cache_layer.backends.alias import CacheAlias
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations.base import (
    Operation,
    OperationContext,
    Refusal,
    Steps,
    chunks,
    raw,
)
from cache_layer.backends.redis.errors import as_unavailable, is_refusal

if TYPE_CHECKING:
    # This import needs the extra ``redis``.
    from cache_layer.backends.redis.internals import Client


class Channel:
    """A channel in the Redis of an alias, under the alias's prefix."""

    def __init__(self, backend: CacheAlias, name: str) -> None:
        self._backend = backend
        self._name = backend.own_key(f"channel:{name}")

    @property
    def exists(self) -> bool:
        """Whether the alias has a Redis."""
        return self._backend.store.transport is not None

    def publish(self, texts: Iterable[str]) -> int:
        """Publish texts; return how many subscribers received one, 0 while Redis cannot be used.

        Without texts, a PING checks the connection, so that the circuit learns of an outage.
        """
        publish = _Publish(self._backend.context, self._name, list(texts))
        received = self._backend.run(publish)
        if publish.refused is not None:
            self._backend.store.circuit.switch_off("PUBLISH", publish.refused)
        return received

    def receive(
        self, handler: Callable[[str], object], ended: threading.Event, silence: float
    ) -> None:
        """Call the handler with each text until ``ended`` is set.

        After ``silence`` seconds without a text, a PING checks the connection.

        Raises:
            Exception: The connection is broken; ``is_outage`` returns True for the exception.
        """
        transport = self._backend.store.transport
        if transport is None:
            return
        try:
            self._receive(transport.client.get_client(write=True), handler, ended, silence)
        except Exception as error:
            if is_refusal(error):
                self._backend.store.circuit.switch_off("SUBSCRIBE", error)
            raise

    def _receive(
        self,
        client: Client,
        handler: Callable[[str], object],
        ended: threading.Event,
        silence: float,
    ) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(self._name)
            asked = False
            while not ended.is_set():
                message = subscription.get_message(timeout=silence)
                if message is None:
                    # Nothing was published, or the connection broke silently.
                    if asked:
                        raise TimeoutError("Redis does not answer the subscriber")
                    subscription.ping()
                    asked = True
                    continue
                asked = False
                if message["type"] == "message":
                    handler(message["data"].decode("utf-8", "replace"))

    @staticmethod
    def is_outage(error: Exception) -> bool:
        """Return whether an error means that Redis cannot be used."""
        return as_unavailable(error) is not None


class _Publish(Operation[int]):
    """Publish texts; return how many received them.

    A user of Redis may have all keys and no channel (that is Redis's default for users): then
    nothing is published, and the cache works as before.
    """

    __slots__ = ("channel", "refused", "texts")
    refusal = Refusal.PASSED
    writes = False
    long = True

    def __init__(self, context: OperationContext, channel: str, texts: list[str]) -> None:
        self.context = context
        self.channel = channel
        self.texts = texts
        #: The reply of Redis, if it refuses to publish.
        self.refused: Exception | None = None

    def steps(self) -> Steps[int]:
        channel = raw(self.channel)
        commands = [("PUBLISH", channel, raw(text)) for text in self.texts]
        received = 0
        for part in chunks(commands or [("PING",)]):
            replies = yield list(part)
            received += sum(reply for reply in replies if type(reply) is int)
            self.refused = next(filter(is_refusal, replies), self.refused)
        return received

    def in_memory(self, store: MemoryStore) -> int:
        return 0
