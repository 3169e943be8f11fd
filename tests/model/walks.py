"""Random walks over the faults of the model, on the real cache and a real Redis.

The clients do what those of the model do, in two processes, each a store of its own; Redis saves
snapshots, restarts from them, refuses, and evicts. The walk keeps the account that the model keeps:
for each process the newest version whose invalidation it has to see.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Generator

import redis

from cache_layer.backends import Lease, ResilientCache
from tests.cache_layer.caches import Leases, close, state, wait_for
from tests.model.history import is_stale
from tests.services import RedisServer

STEPS = 60
KEY = "key"


class Process:
    """A store of its own, and the newest version that was invalidated for it."""

    def __init__(self, url: str, prefix: str, number: int) -> None:
        params = {"KEY_PREFIX": prefix, "OPTIONS": {"MAX_ENTRIES": 1000 + number}}
        self.cache = ResilientCache(url, params)
        self.leases = Leases(self.cache)
        self.floor = 0
        #: Whether its invalidations are not in Redis yet.
        self.apart = False

    @property
    def closed(self) -> bool:
        return state(self.cache) == "redis"


class Walk:
    """One walk; what it did is in ``labels``, for the reader of a failure."""

    def __init__(self, server: RedisServer, admin: redis.Redis, seed: int) -> None:
        self.chance = random.Random(seed)
        self.labels: list[str] = []
        self.stale: list[str] = []
        self._server = server
        self._admin = admin
        self._prefix = f"walk-{uuid.uuid4().hex}"
        self._made = 0
        self._processes = [self._process(), self._process()]
        #: The newest version that was invalidated in Redis.
        self._reached = 0
        self._database = 0
        self._clients: list[Generator[None]] = []

    def run(self) -> None:
        """Walk, and let everybody look at the end."""
        faults: list[Callable[[], None]] = [self._save, self._restart, self._refuse, self._heal]
        faults += [self._evict, self._begin_anew, self._settle]
        for _ in range(STEPS):
            if self.chance.random() < 0.15:
                self.chance.choice(faults)()
            elif len(self._clients) < 3:
                number = self.chance.randrange(2)
                step = self._call if self.chance.random() < 0.6 else self._change
                self._clients.append(step(number))
            else:
                client = self.chance.choice(self._clients)
                if next(client, self) is self:
                    self._clients.remove(client)
        self._heal()
        self._settle()
        for number in (0, 1):
            for _ in self._call(number):
                pass
        for process in self._processes:
            close(process.cache)

    # What the clients do

    def _call(self, number: int) -> Generator[None]:
        process = self._processes[number]
        least = self._floor(process)
        found = process.leases.claim(KEY)
        self._label(number, f"claims and finds {found!r}" if found is not Lease else "claims")
        if not isinstance(found, Lease):
            self._served(number, found, least)
            return
        version = self._database
        yield
        stored = process.leases.fill(KEY, version, found)
        self._label(number, f"fills {version}: {stored}")
        self._served(number, version, least)

    def _change(self, number: int) -> Generator[None]:
        process = self._processes[number]
        self._database += 1
        version = self._database
        yield
        self._floor(process)
        way = self.chance.choice(["delete", "delete_many", "delete_pattern"])
        before = process.cache.store.breaker.epoch
        getattr(process.cache, way)([KEY] if way == "delete_many" else KEY)
        process.floor = max(process.floor, version)
        if process.closed and process.cache.store.breaker.epoch == before and not process.apart:
            self._reached = max(self._reached, version)
        else:
            process.apart = True
        self._label(number, f"{way} of what is older than {version}, {state(process.cache)}")

    def _served(self, number: int, version: int, least: int) -> None:
        if is_stale(version, least):
            self._label(number, f"was served {version}, and at least {least} counted")
            self.stale.append("\n".join(self.labels))

    def _floor(self, process: Process) -> int:
        """What a read that begins now must not be older than."""
        if process.closed:
            if process.apart:
                process.apart = False
                self._reached = max(self._reached, process.floor)
            process.floor = max(process.floor, self._reached)
        return process.floor

    # What may go wrong, or be right again

    def _save(self) -> None:
        self._admin.execute_command("SAVE")
        self._label(None, "saves a snapshot")

    def _restart(self) -> None:
        self._server.kill()
        self._server.start()
        self._label(None, "restarts from its snapshot")

    def _refuse(self) -> None:
        self._admin.config_set("min-replicas-to-write", "1")
        self._label(None, "refuses writes")

    def _heal(self) -> None:
        self._admin.config_set("min-replicas-to-write", "0")
        self._label(None, "takes writes")

    def _evict(self) -> None:
        with contextlib.suppress(redis.ResponseError):
            # Refused while all writes are.
            self._admin.delete(self._processes[0].cache.make_key(KEY))
            self._label(None, "evicts the key")

    def _begin_anew(self) -> None:
        """Process B ends, with its journal, and another begins."""
        old = self._processes[1]
        self._floor(old)
        close(old.cache)
        self._processes[1] = self._process()
        self._label(1, "begins anew")

    def _settle(self) -> None:
        self._heal()
        for process in self._processes:
            wait_for(lambda process=process: process.closed, "Redis is used again")
            self._floor(process)

    def _process(self) -> Process:
        self._made += 1
        return Process(self._server.url, self._prefix, self._made)

    def _label(self, number: int | None, what: str) -> None:
        self.labels.append(f"{'Redis' if number is None else 'AB'[number]}  {what}")
