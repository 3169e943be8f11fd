"""Users of a Redis who may do less than everything."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import redis

from cache_layer.backends import FEATURES, ResilientCache
from cache_layer.backends.refusals import trials
from tests.cache_layer.caches import make_cache
from tests.services import RedisServer

#: What is taken from a user who may do everything. ``{prefix}`` is that of the user's alias, and
#: ``name*`` stands for all commands of Redis whose names begin so.
RULES = (
    "-@dangerous",
    "-@admin",
    "-@scripting",
    "-@keyspace",
    "-@pubsub",
    "-client",
    "-info",
    "-scan",
    "-eval*",
    "-subscribe -psubscribe",
    "resetchannels",
    "resetkeys ~{prefix}:*",
    "resetkeys ~{prefix}:* resetchannels -@dangerous",
    # What a managed service withholds: see docs/topologies.md.
    "-bgrewriteaof -bgsave -config -debug -migrate -replicaof -save -slaveof -shutdown -sync",
)


@dataclasses.dataclass(frozen=True)
class User:
    """One user of one server, and the alias that logs in as this user."""

    server: RedisServer
    rule: str
    name: str = dataclasses.field(default_factory=lambda: f"u{uuid.uuid4().hex}")

    @property
    def prefix(self) -> str:
        return f"app-{self.name}"

    def create(self) -> None:
        with admin(self.server) as client:
            words = [
                word
                for part in self.rule.format(prefix=self.prefix).split()
                for word in expanded(client, part)
            ]
            everything = ("on", ">pw", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", self.name, *everything, *words)

    def cache(self, **params: Any) -> ResilientCache:
        url = self.server.url.replace("://", f"://{self.name}:pw@")
        return make_cache(url, KEY_PREFIX=self.prefix, **params)

    def may(self, client: redis.Redis, *command: Any) -> bool:
        """Ask Redis itself whether it would refuse a command to this user."""
        return bool(client.execute_command("ACL", "DRYRUN", self.name, *command) == b"OK")

    def can_cache(self, client: redis.Redis) -> bool:
        """Whether what the cache cannot do without is allowed."""
        key = f"{self.prefix}:1:k"
        needed = (("GET", key), ("MGET", key), ("SET", key, "v", "PX", 1), ("GETRANGE", key, 0, 1))
        return all(self.may(client, *command) for command in needed)

    def refused(self, client: redis.Redis) -> set[str]:
        """The features that Redis would refuse, of those that can be tried."""
        tried = trials(f"{self.prefix}:k".encode())
        tried |= {"INFO": ("INFO", "server"), "CLIENT ID": ("CLIENT", "ID")}
        assert tried.keys() <= FEATURES.keys()
        return {name for name, command in tried.items() if not self.may(client, *command)}


def admin(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=10)


def expanded(client: redis.Redis, word: str) -> list[str]:
    """All commands that Redis has for a word with an asterisk, else the word."""
    if not (word.startswith("-") and word.endswith("*")):
        return [word]
    found: Any = client.command_list(pattern=word[1:])
    assert found
    return [f"-{name.decode()}" for name in found]


def categories(client: redis.Redis) -> list[str]:
    return [name.decode() for name in client.execute_command("ACL", "CAT")]
