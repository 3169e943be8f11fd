"""Redis Cluster: keeps all keys of an alias on one slot, and connects to its owner.

Scripts, scans and batches need their keys on one server. A hash tag in the ``KEY_PREFIX``
(``{shop}``) puts them there; the cluster then has the role of Sentinel: it names that server, and
promotes a replica when the server dies. A server that has lost the slot counts as unusable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory
from redis import connection as blocking
from redis.asyncio import connection as awaited
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from cache_layer.exceptions import CacheLayerError
from cache_layer.keyspace import KeyTemplate

Address = tuple[str, int]

_TAG: Final = re.compile(r"\{([^}]+)\}")
_QUESTION: Final = ("CLUSTER", "SLOTS")


class ClusterConnectionFactory(ConnectionFactory):  # type: ignore[misc]
    """django-redis's ``CONNECTION_FACTORY`` for one slot of a cluster.

    ``LOCATION`` is the URL of one node, ``OPTIONS["STARTUP_NODES"]`` a list of ``(host, port)``
    of others, to be asked when that one does not answer.
    """

    def get_connection_pool(self, params: dict[str, object]) -> Any:
        """Return a pool whose connections lead to the owner of the slot.

        Raises:
            ImproperlyConfigured: The URL is that of a Unix socket.
        """
        pool = super().get_connection_pool(params)
        known = {
            blocking.Connection: SlotConnection,
            blocking.SSLConnection: SecureSlotConnection,
        }
        if pool.connection_class not in known:
            raise ImproperlyConfigured("A node of a Redis Cluster is found by host and port.")
        pool.connection_class = known[pool.connection_class]
        options = pool.connection_kwargs
        first = options.pop("host", "localhost"), options.pop("port", 6379)
        others = [(host, int(port)) for host, port in self.options.get("STARTUP_NODES", ())]
        options["nodes"] = Nodes([first, *others])
        return pool


class Nodes:
    """The addresses to ask for the owner of a slot, the most promising first."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._startup = list(addresses)
        self._learned: list[Address] = []

    def __iter__(self) -> Iterator[Address]:
        return iter(dict.fromkeys([*self._learned, *self._startup]))

    def owner(self, slot: int, asked: Address, reply: Any) -> Address:
        """Return the owner of a slot, from the answer of a node to ``CLUSTER SLOTS``.

        Raises:
            RedisConnectionError: No node serves the slot.
        """
        for first, last, *servers in reply:
            if first <= slot <= last:
                # A node that does not know its own host leaves it empty; the primary is first.
                found = [
                    (host.decode() if host else asked[0], int(port))
                    for host, port, *_rest in servers
                ]
                self._learned = found
                return found[0]
        raise RedisConnectionError(f"No node of the cluster serves slot {slot}.")


if TYPE_CHECKING:
    _Blocking = blocking.Connection
    _Awaited = awaited.Connection
else:
    _Blocking = _Awaited = object


class _Slot(_Blocking):
    _plain: type[Any]

    def __init__(self, *, slot: int, nodes: Nodes, **options: object) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._slot = slot
        self._nodes = nodes
        self._options = {**options, "redis_connect_func": None}

    def connect(self) -> None:
        """Connect to the owner of the slot."""
        if not self._sock:
            self.host, self.port = self._owner()
            super().connect()  # type: ignore[no-untyped-call]

    def _owner(self) -> Address:
        failure: Exception | None = None
        for host, port in self._nodes:
            node = self._plain(**{**self._options, "host": host, "port": port})
            try:
                node.connect()
                node.send_command(*_QUESTION)
                return self._nodes.owner(self._slot, (host, port), node.read_response())
            except (RedisError, OSError) as error:
                failure = error
            finally:
                node.disconnect()
        raise failure or RedisConnectionError("There is no node to execute.")


class _AwaitedSlot(_Awaited):
    _plain: type[Any]

    def __init__(self, *, slot: int, nodes: Nodes, **options: Any) -> None:
        super().__init__(**options)
        self._slot = slot
        self._nodes = nodes
        self._options = {**options, "redis_connect_func": None}

    async def connect(self) -> None:
        """See ``_Slot.connect()``."""
        if not self.is_connected:
            self.host, self.port = await self._owner()
            await super().connect()  # type: ignore[no-untyped-call]

    async def _owner(self) -> Address:
        failure: Exception | None = None
        for host, port in self._nodes:
            node = self._plain(**{**self._options, "host": host, "port": port})
            try:
                await node.connect()
                await node.send_command(*_QUESTION)
                reply = await node.read_response()
                return self._nodes.owner(self._slot, (host, port), reply)
            except (RedisError, OSError) as error:
                failure = error
            finally:
                await node.disconnect()
        raise failure or RedisConnectionError("There is no node to execute.")


class SlotConnection(_Slot, blocking.Connection):
    """A connection to the owner of a slot."""

    _plain = blocking.Connection


class SecureSlotConnection(_Slot, blocking.SSLConnection):
    """See ``SlotConnection``; over TLS."""

    _plain = blocking.SSLConnection


class AwaitedSlotConnection(_AwaitedSlot, awaited.Connection):
    """See ``SlotConnection``; awaited."""

    _plain = awaited.Connection


class SecureAwaitedSlotConnection(_AwaitedSlot, awaited.SSLConnection):
    """See ``SlotConnection``; awaited and over TLS."""

    _plain = awaited.SSLConnection


def is_clustered(options: dict[str, object]) -> bool:
    """Tell whether a ``CACHES`` entry's ``OPTIONS`` ask for a cluster."""
    path = options.get("CONNECTION_FACTORY")
    found = import_string(path) if isinstance(path, str) else path
    return isinstance(found, type) and issubclass(found, ClusterConnectionFactory)


def hash_tag(backend: BaseCache) -> str:
    """Return the hash tag of all keys of an alias, with its braces.

    Raises:
        ImproperlyConfigured: The key prefix has no hash tag.
    """
    try:
        around = KeyTemplate.of(backend.key_func, backend.key_prefix, backend.version)
    except CacheLayerError as error:
        raise ImproperlyConfigured(str(error)) from None
    # The first brace of a key decides, so a tag of the caller's key behind it does no harm.
    tag = _TAG.search(around.before)
    if tag is None:
        raise ImproperlyConfigured(
            f"On a Redis Cluster all keys of an alias have to be on one slot: KEY_PREFIX needs a "
            f"part in braces, such as {{{backend.key_prefix or 'shop'}}}."
        )
    return tag.group()


def slot_of(tag: str) -> int:
    """Return the slot of the keys with a hash tag."""
    return key_slot(tag.encode("utf-8", "surrogatepass"))
