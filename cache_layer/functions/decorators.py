"""``cached`` and ``cache_invalidate``, for ``def`` and ``async def``, functions and methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction

from cache_layer.aliases import Function, Value
from cache_layer.functions.arguments import CallKeys
from cache_layer.functions.generators import CachedAsyncGenerator, CachedGenerator
from cache_layer.functions.invalidation import InvalidationRule, is_unknown_outcome
from cache_layer.functions.spec import (
    CachedFunctionSpec,
    Cost,
    Options,
    checked_cost,
    expiration_policy,
)
from cache_layer.functions.templates import TagTemplates
from cache_layer.functions.wrappers import (
    AsyncCachedFunction,
    CachedFunction,
    is_generator,
    require_function,
    rewrapped,
)
from cache_layer.interface import Ttl, validate_namespace

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Function)


class _Cached:
    """The decorator that ``cached(...)`` returns."""

    def __init__(self, make_spec: Callable[[Function], CachedFunctionSpec]) -> None:
        self._make_spec = make_spec

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, AsyncIterator[R]]
    ) -> CachedAsyncGenerator[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Iterator[R]]) -> CachedGenerator[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: classmethod[Any, ..., Any] | staticmethod[..., Any]) -> Any: ...
    def __call__(self, function: Any) -> Any:
        if isinstance(function, classmethod | staticmethod):
            return rewrapped(function, self)
        require_function(function, "cached")
        spec = self._make_spec(function)
        if inspect.isasyncgenfunction(function):
            return CachedAsyncGenerator(spec)
        if inspect.isgeneratorfunction(function):
            return CachedGenerator(spec)
        return AsyncCachedFunction(spec) if iscoroutinefunction(function) else CachedFunction(spec)


def cached(
    ttl: Ttl = None,
    key_prefix: str = "",
    namespace: str = "",
    include_args: bool = True,
    cache_none: bool = False,
    *,
    lock: bool = False,
    tags: Iterable[str] = (),
    stale_ttl: float = 0,
    refresh_before: float = 0,
    jitter: float = 0,
    fail_safe: bool = False,
    near: bool | None = None,
    cost: Cost | None = None,
) -> _Cached:
    """Cache the results of a function.

    The key of a result is ``{key_prefix}:{function}:{arguments}`` inside the namespace; without a
    prefix the key begins with the module path. Closures made by one function share their keys: give
    each a different prefix. Exceptions are never cached.

    Concurrent misses on one key run the function once in this process. When that run fails, or its
    result cannot be stored, each waiting caller runs the function itself. A value whose computation
    began before an invalidation is not stored after the invalidation.

    A refresh runs on a thread, or as a task of the caller's event loop, without the caller's
    context and transaction; an invalidation wins over it. When a refresh raises an exception, the
    log says so once, and a result past its ``ttl`` is dropped, so that the next caller sees the
    exception.

    A call with an argument that has no stable form, or with a result that cannot be stored, is not
    cached; the log says so once for each function. Inside a transaction, the function may read rows
    that are never committed; its result is stored all the same.

    For class and static methods, put ``cached`` above ``classmethod`` or ``staticmethod``.

    The chunks of a generator, synchronous or asynchronous, are stored once it was read to its end,
    and replayed on a hit. Callers who miss while it runs in this process (an asynchronous one: in
    this event loop) read along from the first chunk on, each at their own pace. The run goes on
    while a reader is left, and all readers see the exception that it raises. Readers cannot send
    values into the generator.

    Args:
        ttl: Seconds to keep a result. None is the alias's default timeout, ``FOREVER`` never ends,
            zero or less stores nothing.
        key_prefix: The beginning of the keys; ``""`` for the module path of the function.
        namespace: The namespace of the keys and the tags.
        include_args: False lets all calls share one result.
        cache_none: Whether None is cached.
        tags: Names under which results are invalidated together, by ``invalidate_tags`` and
            ``cache_invalidate(tags=...)``, with one command for any number of results.
            ``{argument}`` in a tag is filled from the call.
        lock: Whether concurrent misses run the function once among all processes. A process that
            dies during the run delays the others by at most ``CACHE_LAYER_LEASE_TTL`` seconds.
        stale_ttl: Seconds after ``ttl`` during which a result is still served, while one caller of
            all processes has it refreshed in the background.
        refresh_before: Seconds before the end of ``ttl`` at which such a refresh begins.
        fail_safe: Whether a result whose refresh fails is served until the end of ``stale_ttl``.
            The function is tried again every ``CACHE_LAYER_REFRESH_PAUSE`` seconds.
        jitter: Largest number of seconds taken off ``ttl`` at random, so that results stored
            together do not expire together.
        near: Whether this process keeps copies of results that are in Redis, until they change
            there. None follows ``NEAR_CACHE`` in the ``OPTIONS`` of the alias; True works without
            that option too, within its usual limits, but does nothing if the option is False.
        cost: The cost of one computation, a whole number up to 10¹² in a unit of the project's
            (tokens, cents), or a function that returns it for a result: of a generator, for the
            list of all chunks. The metrics count it as ``spent`` for each computation, and as
            ``saved`` for each call that was answered without one.

    Returns:
        A decorator. The decorated function has ``cache_key``, ``invalidate`` and ``refresh``, which
        take the arguments of a call, and ``invalidate_all``, which invalidates every result in one
        command. All but ``cache_key`` are awaited if the function is.

    Raises:
        ValueError: The namespace contains a colon or a glob character, a lambda is decorated
            without a prefix, a placeholder of a tag is no argument of the function or goes with
            ``include_args=False``, a time is negative or not finite, ``jitter`` and
            ``refresh_before`` together are not less than ``ttl``, a ``ttl`` that never ends or
            keeps nothing goes with one of these times, or ``fail_safe`` with no ``stale_ttl``;
            the cost is negative or too large; or ``lock``, ``stale_ttl`` or ``refresh_before`` is
            given for a generator.
        TypeError: The decorated object is not a function; a time is not a number; ``near`` is
            neither True nor False nor None; ``cost`` is neither a whole number nor a function.
    """
    if callable(ttl):
        raise TypeError("Write @cached(), with parentheses.")
    if near is not None and not isinstance(near, bool):
        raise TypeError(f"near is True, False or None, not {near!r}.")
    options = Options(
        namespace=validate_namespace(namespace),
        policy=expiration_policy(
            ttl, stale_ttl=stale_ttl, refresh_before=refresh_before, jitter=jitter
        ),
        cache_none=cache_none,
        lock=lock,
        fail_safe=fail_safe,
        near=near,
        cost=checked_cost(cost),
    )
    if fail_safe and not stale_ttl:
        raise ValueError("fail_safe serves results within stale_ttl: give a stale_ttl too.")
    tags = tags if isinstance(tags, str) else tuple(tags)

    def spec(function: Callable[..., object]) -> CachedFunctionSpec:
        if is_generator(function) and (lock or stale_ttl or refresh_before):
            raise ValueError(
                "lock, stale_ttl, refresh_before and fail_safe are for functions, and "
                f"{function.__qualname__} is a generator."
            )
        if not key_prefix and function.__name__ == "<lambda>":
            raise ValueError("All lambdas have the same name: give this one a key_prefix.")
        keys = CallKeys(function, key_prefix, include_args=include_args)
        templates = TagTemplates(function, keys, tags)
        if templates.vary and not include_args:
            raise ValueError(
                "With include_args=False all calls share one result, so its tags cannot be of "
                "one call's arguments."
            )
        return CachedFunctionSpec(function, keys, templates, options)

    return _Cached(spec)


def cache_invalidate(
    key_pattern: str = "", namespace: str = "", *, tags: Iterable[str] = ()
) -> Callable[[F], F]:
    """Delete the keys that match a pattern after each call of a function.

    They are not deleted if the function raises an exception. They are deleted if its outcome is
    unknown, because it was cancelled, interrupted, or ran into a time limit.

    In the pattern, ``*``, ``?`` and ``[...]`` are Redis's, and ``{argument}`` is filled from the
    call, so that ``users:get_user:{user_id}`` deletes the results of ``get_user`` for that id. An
    empty pattern means the whole namespace, unless there are ``tags``: then it means no key. Every
    result that has one of the tags is forgotten too; ``{argument}`` works in them as well.

    Inside a transaction the keys are deleted when it ends, by a commit or a rollback, and at once
    as well where another database has none open, or where the transaction is that of Django's
    ``TestCase``. A transaction belongs to a thread: an ``async def`` function finds the one of the
    synchronous code that called it through ``async_to_sync``.

    Raises:
        ValueError: Pattern, namespace and tags are all empty, a placeholder is no argument of the
            function, or the namespace contains a colon or a glob character.
    """
    if callable(key_pattern):
        raise TypeError("Write @cache_invalidate(...), with parentheses and a pattern.")
    kept_tags = tags if isinstance(tags, str) else tuple(tags)

    def decorate(function: Any) -> Any:
        if isinstance(function, classmethod | staticmethod):
            return type(function)(decorate(function.__func__))
        require_function(function, "cache_invalidate")
        if is_generator(function):
            raise TypeError(
                f"cache_invalidate cannot decorate the generator {function!r}: its call ends "
                "before anything was done. Call invalidate_tags() where it has done its work."
            )
        rule = InvalidationRule(function, key_pattern, namespace, kept_tags)

        # The arguments are read before the call, because the call may delete or change them.
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: object, **kwargs: object) -> Value:
                before = rule.of_call(args, kwargs)
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    if is_unknown_outcome(error):
                        await (before or rule.after_call(args, kwargs)).aafter_interruption()
                    raise
                await (before or rule.after_call(args, kwargs)).aafter_call()
                return result

            return awaited

        @functools.wraps(function)
        def called(*args: object, **kwargs: object) -> Value:
            before = rule.of_call(args, kwargs)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                if is_unknown_outcome(error):
                    (before or rule.after_call(args, kwargs)).after_call()
                raise
            (before or rule.after_call(args, kwargs)).after_call()
            return result

        return called

    return cast("Callable[[F], F]", decorate)
