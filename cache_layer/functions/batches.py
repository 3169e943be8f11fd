"""Functions of many items whose results are kept one by one: ``cached_many``."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction

from cache_layer.aliases import Function, Value
from cache_layer.backends import ResilientCache
from cache_layer.exceptions import UnstableArgumentError
from cache_layer.functions.arguments import Args, CallKeys, Kwargs
from cache_layer.functions.compute import adrive, drive
from cache_layer.functions.compute_many import Batch, BatchSpec
from cache_layer.functions.invalidation import Invalidation
from cache_layer.functions.spec import (
    CachedFunctionSpec,
    Cost,
    Options,
    checked_cost,
    expiration_policy,
)
from cache_layer.functions.templates import TagTemplates
from cache_layer.functions.transactions import aon_commit, on_commit
from cache_layer.functions.wrappers import Wrapper, is_generator, require_function, rewrapped
from cache_layer.interface import Ttl, resilient_cache, validate_namespace

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def cached_many(
    ttl: Ttl = None,
    key_prefix: str = "",
    namespace: str = "",
    cache_none: bool = False,
    *,
    over: str = "",
    tags: Iterable[str] = (),
    jitter: float = 0,
    cost: Cost | None = None,
) -> _CachedMany:
    """Keep what a function returns for each of many items, such as embeddings of texts.

    The function takes the items in one of its arguments, and returns one result for each, in
    their order. A call reads the results of all its items in one round trip, calls the function
    once for those that are missing, each once, and returns a list. Equal items have one result.

    Each result has a key of its own, which is that of a call with the item in the place of the
    items: what ``cached`` says of keys, tags, invalidation, leases and single flight is true for
    each item. In a tag, the name of the argument stands for the item.

    ``over`` is the name of the argument with the items, by default the first one (after
    ``self``); the other arguments mean what they mean for ``cached``. The near cache is not asked.

    Raises:
        ValueError: See ``cached``; or the function has no argument of that name.
        TypeError: See ``cached``; or the function has an argument that cannot be given by name.
    """
    if callable(ttl):
        raise TypeError("Write @cached_many(), with parentheses.")
    options = Options(
        namespace=validate_namespace(namespace),
        policy=expiration_policy(ttl, stale_ttl=0, refresh_before=0, jitter=jitter),
        cache_none=cache_none,
        lock=False,
        fail_safe=False,
        near=False,
        cost=checked_cost(cost),
    )
    tags = tags if isinstance(tags, str) else tuple(tags)

    def make(function: Function) -> BatchSpec:
        keys = CallKeys(function, key_prefix)
        name = _items_argument(function, over)
        one = CachedFunctionSpec(
            _of_one(function, name), keys, TagTemplates(function, keys, tags), options
        )
        return BatchSpec(one, function, name)

    return _CachedMany(make)


class _Many(Wrapper):
    """The common part of both kinds of functions of many items."""

    def __init__(self, spec: BatchSpec) -> None:
        super().__init__(spec.one)
        self._many = spec

    def __get__(self, instance: object, owner: type[object] | None = None) -> Any:
        """Bind it, as a function is bound to the object it is looked up on."""
        return self if instance is None else self._bind(instance)

    def _batch(self, backend: ResilientCache, args: Args, kwargs: Kwargs) -> Batch:
        return Batch(self._many, backend, self._bound + args, kwargs)

    def _invalidation_of_items(self, args: Args, kwargs: Kwargs) -> Invalidation:
        keys, over = self._spec.keys, self._many.over
        arguments = keys.arguments(self._bound + args, kwargs)
        texts = []
        for item in cast("Iterable[object]", arguments[over]):
            # A call with another argument is not kept.
            with contextlib.suppress(UnstableArgumentError):
                texts.append(keys.key((), {**arguments, over: item}))
        return Invalidation(self._spec.options.namespace, keys=texts)


class CachedBatchFunction(_Many, Generic[P, R]):
    """A function of many items whose results are kept one by one; called like the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Return one result for each item, kept or computed.

        Raises:
            ValueError: The function returned another number of results than it was given items.
            TypeError: It returned none, or it does not take these arguments.
        """
        backend = resilient_cache()
        batch = self._batch(backend, args, kwargs)
        return drive(batch.steps(), backend)  # type: ignore[no-any-return]

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Forget the results of these items; return how many there were.

        Inside ``transaction.atomic()`` they are forgotten at once and again after the commit.
        """
        invalidation = self._invalidation_of_items(args, kwargs)
        on_commit(invalidation)
        return invalidation()

    def invalidate_all(self) -> None:
        """Forget every result of the function, at the cost of one key; as ``invalidate`` does."""
        invalidation = self._invalidation_of_all()
        on_commit(invalidation)
        invalidation()


class AsyncCachedBatchFunction(_Many, Generic[P, R]):
    """An ``async def`` function of many items whose results are kept one by one."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """See ``CachedBatchFunction.__call__``."""
        backend = resilient_cache()
        batch = self._batch(backend, args, kwargs)
        return await adrive(batch.steps(), backend)  # type: ignore[no-any-return]

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """See ``CachedBatchFunction.invalidate``."""
        invalidation = self._invalidation_of_items(args, kwargs)
        await aon_commit(invalidation)
        return await invalidation.awaited()

    async def invalidate_all(self) -> None:
        """See ``CachedBatchFunction.invalidate_all``."""
        invalidation = self._invalidation_of_all()
        await aon_commit(invalidation)
        await invalidation.awaited()


class _CachedMany:
    """The decorator that ``cached_many(...)`` returns."""

    def __init__(self, make_spec: Callable[[Function], BatchSpec]) -> None:
        self._make_spec = make_spec

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, Iterable[R]]]
    ) -> AsyncCachedBatchFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Iterable[R]]) -> CachedBatchFunction[P, R]: ...
    @overload
    def __call__(self, function: classmethod[Any, ..., Any] | staticmethod[..., Any]) -> Any: ...
    def __call__(self, function: Any) -> Any:
        if isinstance(function, classmethod | staticmethod):
            return rewrapped(function, self)
        require_function(function, "cached_many")
        if is_generator(function):
            raise TypeError(f"cached_many cannot decorate {function!r}: it returns no results.")
        spec = self._make_spec(function)
        kind = AsyncCachedBatchFunction if iscoroutinefunction(function) else CachedBatchFunction
        return kind(spec)


def _items_argument(function: Function, over: str) -> str:
    """Return the name of the argument with the items."""
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.kind not in _PLAIN:
            raise TypeError(
                f"cached_many gives arguments by name, which {parameter} of "
                f"{function.__qualname__} does not allow."
            )
    names = [name for name in parameters if name not in ("self", "cls")]
    if over:
        if over not in names:
            raise ValueError(f"{function.__qualname__} has no argument {over!r}.")
        return over
    if not names:
        raise ValueError(f"{function.__qualname__} has no argument with items.")
    return names[0]


def _of_one(function: Function, over: str) -> Function:
    """Return the function of one item."""
    if iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(**arguments: object) -> Value:
            (result,) = await function(**{**arguments, over: [arguments[over]]})
            return result

        return awaited

    @functools.wraps(function)
    def called(**arguments: object) -> Value:
        (result,) = function(**{**arguments, over: [arguments[over]]})
        return result

    return called
