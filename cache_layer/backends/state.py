"""What all instances of one alias share in a process, and who answers: Redis or memory.

Django makes a backend instance per thread and task; the memory store, the circuit, the journal and
the connections must be one. They are found by LOCATION and OPTIONS.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
from typing import Any, TypeVar

from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed

from cache_layer.backends.encoding import Codec
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.near.cache import NearOptions
from cache_layer.backends.near.decoded import DecodedValues
from cache_layer.backends.operations.base import NeedsTagTokens, Operation, OperationContext
from cache_layer.backends.redis.errors import CircuitOpenError, RedisUnavailableError
from cache_layer.breaker import Breaker
from cache_layer.conf import PREFIX, options_of, settings
from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace
from cache_layer.redact import without_password
from cache_layer.signals import cache_state_changed

T = TypeVar("T")

logger = logging.getLogger("cache_layer")


class MemoryState:
    """An alias without a LOCATION: memory only."""

    def __init__(self, params: dict[str, Any]) -> None:
        options = options_of(params)
        limit = options.get("MAX_ENTRIES")
        self.codec = Codec(options)
        self.memory = MemoryStore(
            (lambda: settings.MEMORY_MAX_ENTRIES) if limit is None else (lambda: int(limit))
        )
        self.lock = self.memory.lock
        self._since = dt.datetime.now(dt.UTC)

    def run(self, operation: Operation[T]) -> T:
        """Do an operation."""
        with self.lock:
            return operation.in_memory(self.memory)

    async def arun(self, operation: Operation[T]) -> T:
        """See ``run()``."""
        with self.lock:
            return operation.in_memory(self.memory)

    def keeps(self, namespace: str, asked: bool | None = None) -> bool:
        """Tell whether what is read under a namespace is kept in this process.

        ``asked``: what the reader says about it, if anything.
        """
        return False

    def decoded(
        self, context: OperationContext, view: tuple[Any, ...] | None = None
    ) -> DecodedValues | None:
        """Return decoded values of the near cache by the caller's names; None: there is none.

        With a ``view``, which tells whose names they are, everyone who gives it gets the same.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """Return who answers (``"redis"`` or ``"memory"``), since when, and why."""
        return {"state": "memory", "since": self._since, "reason": "no LOCATION is configured"}

    def forget_decoded(self) -> None:
        """Drop everything that ``decoded()`` would find."""

    def allow_other_prefixes(self) -> None:
        """Take note that backends of this alias may have different prefixes."""

    def close(self) -> None:
        """Forget this state: the alias begins anew, empty, at its next use."""
        with _states_lock:
            for key in [key for key, state in _states.items() if state is self]:
                del _states[key]

    def after_fork(self) -> None:
        """Begin empty in a forked child: the lock may have been held by another thread."""
        self.memory.clear()
        self.memory.lock = self.lock = threading.RLock()


class RedisState(MemoryState):
    """An alias with a LOCATION: Redis, and memory while Redis cannot be used."""

    def __init__(self, location: Any, params: dict[str, Any], backend: BaseCache) -> None:
        from cache_layer.backends.redis.async_transport import AsyncTransport
        from cache_layer.backends.redis.transport import Transport

        super().__init__(params)
        self._location = location
        self.context = OperationContext("", self.codec, None)
        #: The keys of the aliases that share this state.
        self.scopes: dict[Keyspace, None] = {}
        self.stopped = threading.Event()
        self.transport = Transport(location, params, backend)
        self._new_circuit()
        self._async_transport = AsyncTransport(self.transport, self.breaker)

    def _new_circuit(self) -> None:
        self.breaker = Breaker(lambda: settings.BREAKER_FAILURES)
        self.journal = Journal(lambda: settings.JOURNAL_MAX_ENTRIES)

    def run(self, operation: Operation[T]) -> T:
        """Do an operation, where it can be done."""
        breaker = self.breaker
        while True:
            if breaker.closed:
                try:
                    result = self.transport.run(operation)
                except NeedsTagTokens as detour:
                    operation = detour.operation
                    continue
                except RedisUnavailableError as failure:
                    self._failed(operation, failure)
                else:
                    if breaker.failed:
                        self._succeeded()
                    return result
            answer = self._in_memory(operation)
            if answer is not None:
                return answer[0]

    async def arun(self, operation: Operation[T]) -> T:
        """See ``run()``."""
        breaker = self.breaker
        transport = self._async_transport
        while True:
            if breaker.closed:
                try:
                    sent = transport.sent(operation)
                    if sent is None:
                        result = await transport.run(operation)
                    else:
                        result = transport.received(operation, await sent)
                except NeedsTagTokens as detour:
                    operation = detour.operation
                    continue
                except RedisUnavailableError as failure:
                    self._failed(operation, failure)
                else:
                    if breaker.failed:
                        self._succeeded()
                    return result
            answer = self._in_memory(operation)
            if answer is not None:
                return answer[0]

    def describe(self) -> dict[str, Any]:
        """See ``MemoryState.describe``."""
        breaker = self.breaker
        return {
            "state": "redis" if breaker.closed else "memory",
            "since": dt.datetime.fromtimestamp(breaker.since, dt.UTC),
            "reason": breaker.reason,
        }

    def close_circuit(self) -> None:
        """Let Redis answer again. The caller holds the lock and has replayed the journal."""
        self.memory.clear()
        self.transport.renew()
        self.breaker.close()

    def announce(self) -> None:
        """Tell the log and the signal who answers now."""
        now = self.describe()
        urls = self._location.split(",") if isinstance(self._location, str) else self._location
        location = ", ".join(str(without_password(url)) for url in urls)
        if now["state"] == "redis":
            logger.info("Redis at %s decoded again; the cache uses it.", location)
        else:
            logger.warning(
                "Redis at %s cannot be used (%s); the cache decoded from memory until it can.",
                location,
                now["reason"],
            )
        from cache_layer.backends.resilient import ResilientCache

        for receiver, outcome in cache_state_changed.send_robust(
            ResilientCache, location=location, **now
        ):
            if isinstance(outcome, Exception):
                logger.error(
                    "Receiver %r of cache_state_changed failed.", receiver, exc_info=outcome
                )

    def close(self) -> None:
        """See ``MemoryState.close``; probing ends and the synchronous connections are closed."""
        super().close()
        self.stopped.set()
        self.transport.close()

    def after_fork(self) -> None:
        """See ``MemoryState.after_fork``; connections, circuit and journal are the parent's."""
        super().after_fork()
        self.stopped = threading.Event()
        self.transport.after_fork()
        self._new_circuit()
        self._async_transport.after_fork(self.breaker)

    def _failed(self, operation: Operation[Any], failure: RedisUnavailableError) -> None:
        if isinstance(failure, CircuitOpenError):
            return
        from cache_layer.backends.recovery import Recovery

        with self.lock:
            if operation.writes:
                # Redis may have done it, or may do it yet.
                operation.remember(self.journal)
            opened = self.breaker.failure(
                failure.reason, decisive=failure.decisive or operation.writes
            )
        if opened:
            self.announce()
            Recovery(self).start()

    def _succeeded(self) -> None:
        with self.lock:
            self.breaker.success()

    def _in_memory(self, operation: Operation[T]) -> tuple[T] | None:
        """Return the result, in a tuple, or None when Redis is to be asked after all."""
        with self.lock:
            if self.breaker.closed:
                if operation.writes:
                    return None
                # One failure of a read, not an outage yet: memory is empty, so this is a miss.
            else:
                operation.remember(self.journal)
            return (operation.in_memory(self.memory),)


State = MemoryState
_states: dict[str, MemoryState] = {}
_states_lock = threading.Lock()


def state_for(
    location: Any, params: dict[str, Any], backend: BaseCache, keyspace: Keyspace | None
) -> MemoryState:
    """Return the process's state for a ``CACHES`` entry, made at first use."""
    options = params.get("OPTIONS") or {}
    slot = _slot(options, backend) if location else ""
    key = repr((location or "", sorted(options.items()), slot))
    state = _states.get(key)
    if state is None:
        with _states_lock:
            state = _states.get(key)
            if state is None:
                state = _states[key] = _make_state(location, params, backend)
    if isinstance(state, RedisState) and isinstance(keyspace, Keyspace):
        state.scopes[keyspace] = None
    return state


def _make_state(location: Any, params: dict[str, Any], backend: BaseCache) -> MemoryState:
    if not location:
        return MemoryState(params)
    options = options_of(params)
    near = NearOptions.of(options.get("NEAR_CACHE"))
    # On a cluster the news would go on coming from the server that owned the keys once.
    if near is not None and not _slot(options, backend):
        from cache_layer.backends.near_state import NearState

        return NearState(location, params, backend, near)
    return RedisState(location, params, backend)


def _forget_decoded(*, setting: str, **kwargs: Any) -> None:
    # Names may lead to other keys now.
    if setting == "CACHES" or setting.startswith(PREFIX):
        for state in list(_states.values()):
            state.forget_decoded()


def _slot(options: dict[str, Any], backend: BaseCache) -> str:
    """Return what aliases must have in common to share connections to a cluster."""
    if "CONNECTION_FACTORY" not in options:
        return ""
    from cache_layer.backends.redis.cluster import hash_tag, is_clustered

    return hash_tag(backend) if is_clustered(options) else ""


def _after_fork() -> None:
    global _states_lock
    _states_lock = threading.Lock()
    for state in _states.values():
        state.after_fork()


setting_changed.connect(_forget_decoded)
os.register_at_fork(after_in_child=_after_fork)
