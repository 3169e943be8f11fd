"""The state of an alias with a near cache."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from django.core.cache.backends.base import BaseCache

from cache_layer.backends.near.cache import NearCache, NearJournal, NearOptions
from cache_layer.backends.near.decoded import DecodedValues
from cache_layer.backends.near.operations import Near, near_twin
from cache_layer.backends.near.tracking import Tracker
from cache_layer.backends.operations.base import Operation, OperationContext, Read, Single
from cache_layer.backends.redis.errors import RedisUnavailableError
from cache_layer.backends.state import RedisState
from cache_layer.journal import Journal
from cache_layer.keyspace import Keyspace

T = TypeVar("T")

#: Views of which the decoded values are shared; a project may have one for each tenant.
_MOST_VIEWS: Final = 500


class NearState(RedisState):
    """Redis, memory while it cannot be used, and copies of what was read while it can."""

    def __init__(
        self, location: Any, params: dict[str, Any], backend: BaseCache, options: NearOptions
    ) -> None:
        super().__init__(location, params, backend)
        self.near = NearCache(options)
        self._views: dict[tuple[Any, ...], DecodedValues] = {}
        self._forgetting = cast("Journal", NearJournal(self.near))
        self._begin()

    def _begin(self) -> None:
        self._tracker: Tracker | None = None
        self._tracker_lock = threading.Lock()
        self._closed = False

    def run(self, operation: Operation[T]) -> T:
        """See ``MemoryState.run``."""
        if operation.context.near and (near := self._near_twin(operation)) is not None:
            if (found := near.found()) is not None:
                return found[0]
            operation = near
        if not operation.writes:
            return RedisState.run(self, operation)
        self._forget(operation)
        try:
            return super().run(operation)
        finally:
            self._forget(operation)

    def arun(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """See ``run()``."""
        if operation.writes or operation.context.near:
            return self._arun_near(operation)
        # Not by super(), which takes longer than it looks.
        return RedisState.arun(self, operation)

    async def _arun_near(self, operation: Operation[T]) -> T:
        if operation.context.near and (near := self._near_twin(operation)) is not None:
            if (found := near.found()) is not None:
                return found[0]
            operation = near
        if not operation.writes:
            return await super().arun(operation)
        self._forget(operation)
        try:
            return await super().arun(operation)
        finally:
            self._forget(operation)

    def keeps(self, namespace: str, asked: bool | None = None) -> bool:
        """See ``MemoryState.keeps``."""
        names = self.near.options.namespaces
        return (names is None or namespace in names) if asked is None else asked

    def decoded(
        self, context: OperationContext, view: tuple[Any, ...] | None = None
    ) -> DecodedValues | None:
        """See ``MemoryState.decoded``."""
        if not context.near:
            return None
        decoded = DecodedValues(self.near, self.codec.decode, of_view=view is not None)
        if view is None:
            return decoded
        if len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        return self._views.setdefault(view, decoded)

    def forget_decoded(self) -> None:
        """See ``MemoryState.forget_decoded``."""
        self.near.drop_all()

    def allow_other_prefixes(self) -> None:
        """See ``MemoryState.allow_other_prefixes``."""
        self.near.allow_other_prefixes()

    def describe(self) -> dict[str, Any]:
        """See ``MemoryState.describe``; ``near`` tells what the near cache holds."""
        near = self.near
        if self._tracker is None and near.options.namespaces == frozenset():
            # Nobody has asked for it.
            return super().describe()
        held = {"on": near.on, "entries": len(near), "bytes": near.bytes}
        return {**super().describe(), "near": held}

    def close(self) -> None:
        """See ``MemoryState.close``."""
        with self._tracker_lock:
            self._closed = True
            tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.stop()
            tracker.join(5)
        super().close()

    def after_fork(self) -> None:
        """See ``MemoryState.after_fork``."""
        super().after_fork()
        self.near.after_fork()
        # The parent's listener is kept from being collected: its socket is the parent's.
        self._inherited = self._tracker
        self._begin()

    def _failed(self, operation: Operation[Any], failure: RedisUnavailableError) -> None:
        super()._failed(operation, failure)
        if not self.breaker.closed and self.near.on:
            self.near.turn_off()

    def _forget(self, operation: Operation[Any]) -> None:
        if self.near.on:
            operation.remember(self._forgetting)
            # What stores under a lease has nothing for the journal.
            if isinstance(operation, Single) and not isinstance(operation, Read):
                self.near.drop((operation.key,))

    def _near_twin(self, operation: Operation[T]) -> Near[T] | None:
        """Return what does an operation with the near cache; None where that is of no use."""
        keyspace = operation.context.keyspace
        tracker = self._tracker
        if keyspace is None:
            return None
        if tracker is None or keyspace not in tracker.scopes:
            self._listen(keyspace)
            return None
        return near_twin(self.near, operation) if self.near.on else None

    def _listen(self, keyspace: Keyspace) -> None:
        with self._tracker_lock:
            before = self._tracker
            if self._closed or (before is not None and keyspace in before.scopes):
                return
            scopes = {keyspace, *(before.scopes if before is not None else ())}
            if before is not None:
                before.stop()
            tracker = Tracker(self.near, self.transport, self._usable, scopes)
            # The interpreter may be about to end.
            with contextlib.suppress(RuntimeError):
                tracker.start()
                self._tracker = tracker

    @property
    def _usable(self) -> Callable[[], bool]:
        return lambda: self.breaker.closed
