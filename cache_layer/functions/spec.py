"""The options of one cached function, and the warnings already logged about it."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from cache_layer import metrics
from cache_layer.aliases import Function, Value
from cache_layer.backends import (
    ExpirationPolicy,
    ResilientCache,
    ResultOperationFactory,
)
from cache_layer.exceptions import is_time_limit
from cache_layer.functions.arguments import CallKeys
from cache_layer.functions.fast_path import ArgumentIndex
from cache_layer.functions.templates import TagTemplates
from cache_layer.interface import FOREVER, Ttl, as_timeout

logger = logging.getLogger("cache_layer")

#: The largest cost that is counted: sums of all processes have 64 bits.
MAX_COST: Final = 10**12

#: The cost of computing a result, or a function that returns it for a result.
Cost = int | Callable[[Any], int]

#: Largest number of functions whose factory a backend keeps, because a project may make functions
#: without end.
_MOST_KEPT = 500


def expiration_policy(
    ttl: Ttl, *, stale_ttl: float, refresh_before: float, jitter: float
) -> ExpirationPolicy:
    """Return the policy for the time arguments of ``cached``, which are in seconds.

    Raises:
        TypeError: One of the times is not a number.
        ValueError: One of the times is negative or not finite, or two of them contradict.
    """
    timeout = as_timeout(ttl)
    times = {"stale_ttl": stale_ttl, "refresh_before": refresh_before, "jitter": jitter}
    for name, seconds in times.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{name} is a number of seconds, not {seconds!r}.")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{name} is a finite number of seconds from 0 on, not {seconds!r}.")
    given = ", ".join(name for name, seconds in times.items() if seconds)
    if given and ttl is FOREVER:
        raise ValueError(f"With ttl=FOREVER there is no end that {given} could refer to.")
    if given and isinstance(ttl, int | float):
        if ttl <= 0:
            raise ValueError(f"With ttl={ttl} nothing is kept: {given} is for nothing.")
        if refresh_before + jitter >= ttl:
            raise ValueError(
                f"refresh_before={refresh_before} and jitter={jitter} together have to be "
                f"less than ttl={ttl}."
            )
    return ExpirationPolicy(timeout, stale_ttl, refresh_before, jitter)


def checked_cost(cost: Any) -> Cost | None:
    """Return the ``cost`` that a decorator was given.

    Raises:
        TypeError: It is neither a whole number nor a function.
        ValueError: It is negative, or too large to be added up.
    """
    if cost is None or callable(cost):
        return cast("Cost | None", cost)
    if isinstance(cost, bool) or not isinstance(cost, int):
        raise TypeError(f"cost is a whole number or a function of the result, not {cost!r}.")
    return _in_range(cost)


def _in_range(cost: int) -> int:
    if not 0 <= cost <= MAX_COST:
        raise ValueError(f"cost is from 0 to {MAX_COST:,}, not {cost!r}: choose a larger unit.")
    return cost


class Options(NamedTuple):
    """The arguments of ``cached``, checked."""

    namespace: str
    policy: ExpirationPolicy
    cache_none: bool
    lock: bool
    fail_safe: bool
    near: bool | None
    #: What one computation costs, in a unit of the project's, or a function of the result.
    cost: Cost | None = None


class CachedFunctionSpec:
    """One decorated function; shared by its bound methods, threads and tasks."""

    def __init__(
        self,
        function: Function,
        keys: CallKeys,
        tags: TagTemplates,
        options: Options,
    ) -> None:
        self.function = function
        self.options = options
        self.index = ArgumentIndex()
        self.keys = keys
        self.tags = tags
        self._warned: set[str] = set()
        self._failing = False

    @property
    def name(self) -> str:
        """The name of the function in the log."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def factory(self, backend: ResilientCache) -> ResultOperationFactory:
        """Return a new factory of operations on the results, and keep it with the backend."""
        if len(backend.result_factories) >= _MOST_KEPT:
            backend.result_factories.clear()
        made = ResultOperationFactory(
            backend,
            backend.context_of(self.options.namespace, self.options.near, computed=True),
            self.options.policy,
            self.keys.stem,
            (self.keys.tag, *self.tags.fixed),
        )
        backend.result_factories[self] = made
        return made

    def count_cost(self, event: str, value: Value) -> None:
        """Count the cost of a result under an event: ``"spent"`` or ``"saved"``.

        A cost function that does not work never fails the call; the log says so once.
        """
        cost = self.options.cost
        if cost is None:
            return
        try:
            amount = cost if isinstance(cost, int) else _in_range(operator.index(cost(value)))
        except Exception as error:
            if is_time_limit(error):
                raise
            if "cost" not in self._warned:
                self._warned.add("cost")
                logger.warning("The cost of a result of %s is not counted: %s", self.name, error)
        else:
            metrics.record(self.options.namespace, event, amount)

    def warn_once(self, what: str, error: Exception) -> None:
        """Log why calls are not cached, once for each reason."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s %s, so such calls are not cached: %s", self.name, what, error)

    def refresh_failed(self, error: Exception, *, kept: bool) -> None:
        """Log that a refresh raised an exception: once, until a refresh works again."""
        if not self._failing:
            self._failing = True
            what = "goes on being served" if kept else "is served no more"
            logger.warning(
                "%s raised while a result was refreshed; the old one %s.",
                self.name,
                what,
                exc_info=error,
            )

    def refresh_succeeded(self) -> None:
        """Log that refreshing works again, after a failure."""
        if self._failing:
            self._failing = False
            logger.info("%s works again.", self.name)
