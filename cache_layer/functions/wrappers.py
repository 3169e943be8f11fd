"""The objects that ``cached`` returns, which are called like the function and have some methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from cache_layer.backends import (
    MISSING,
    NOT_FOUND,
    ResilientCache,
    ResultKey,
    ResultOperationFactory,
    StaleValue,
)
from cache_layer.exceptions import UnstableArgumentError
from cache_layer.functions.arguments import Args, Kwargs
from cache_layer.functions.compute import CachedCall, Miss, adrive, drive
from cache_layer.functions.invalidation import Invalidation
from cache_layer.functions.refresh import Refresh, background
from cache_layer.functions.spec import CachedFunctionSpec
from cache_layer.functions.transactions import aon_commit, on_commit
from cache_layer.interface import resilient_cache

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Wrapper:
    """The common part of both wrappers: they look like the function, and bind like it."""

    def __init__(self, spec: CachedFunctionSpec) -> None:
        function = spec.function
        functools.update_wrapper(cast("Any", self), function)
        # With these, inspect takes it for a function, awaited or not.
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        self._spec = spec
        self._bound: Args = ()

    def __repr__(self) -> str:
        return f"<cached {self._spec.function.__qualname__}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        # Pickled and copied by name, like functions.
        name = self._spec.function.__qualname__
        return (getattr, (self._bound[0], name.rpartition(".")[2])) if self._bound else name

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self._spec.function)
        parameters = list(signature.parameters.values())
        return signature.replace(parameters=parameters[len(self._bound) :])

    def _place(
        self, args: Args, kwargs: Kwargs
    ) -> tuple[ResilientCache, ResultOperationFactory, ResultKey] | None:
        """Return the cache and the key of the result of a call, or None if it is not stored.

        Raises:
            TypeError: The function's signature does not allow the call.
        """
        spec = self._spec
        backend = resilient_cache()
        factory = backend.result_factories.get(spec) or spec.factory(backend)
        try:
            key = spec.keys.key(args, kwargs)
            if not spec.tags.vary:
                return backend, factory, factory.result_key(key)
            tags = spec.tags.keys(spec.keys.arguments(args, kwargs))
            return backend, factory, factory.result_key(key, tags)
        except UnstableArgumentError as error:
            spec.warn_once("has an argument without a stable form", error)
            return None

    def _keepable(self, args: Args, kwargs: Kwargs) -> CachedCall | None:
        """Return the call, with the place of its result; None where it cannot be kept."""
        every = self._bound + args
        try:
            place = self._place(every, kwargs)
        except TypeError as error:
            self._spec.warn_once("is called otherwise than its signature says", error)
            return None
        if place is None or not place[1].is_storing:
            return None
        return CachedCall(self._spec, *place, every, kwargs)

    def _cache_key(self, args: Args, kwargs: Kwargs) -> str:
        key = self._spec.keys.key(self._bound + args, kwargs)
        namespace = self._spec.options.namespace
        return f"{namespace}:{key}" if namespace else key

    def _invalidation(self, args: Args, kwargs: Kwargs) -> Invalidation | None:
        try:
            key = self._spec.keys.key(self._bound + args, kwargs)
        except UnstableArgumentError:
            # Such a call is not kept.
            return None
        return Invalidation(self._spec.options.namespace, keys=[key])

    def _invalidation_of_all(self) -> Invalidation:
        return Invalidation(self._spec.options.namespace, keys=[self._spec.keys.tag])

    def _bind(self, instance: object) -> Any:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._bound = (instance,)
        return bound


class CachedFunction(Wrapper, Generic[P, R]):
    """A function whose results are cached; called like the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached result, or call the function and cache its result."""
        every = self._bound + args if self._bound else args
        spec = self._spec
        if spec.index.values is not None:
            near = spec.index.get(every, kwargs)
            if near is not NOT_FOUND:
                if spec.options.cost is not None:
                    spec.count_cost("saved", near)
                return near  # type: ignore[no-any-return]
        try:
            place = self._place(every, kwargs)
        except TypeError as error:
            # The call itself raises a better one, unless a decorator below changes arguments.
            value: R = spec.function(*every, **kwargs)
            spec.warn_once("is called otherwise than its signature says", error)
            return value
        if place is None:
            return spec.function(*every, **kwargs)  # type: ignore[no-any-return]
        backend, factory, result = place
        read = factory.read(result)
        found = backend.store.run(read)
        if found is MISSING:
            miss = Miss(CachedCall(spec, *place, every, kwargs))
            return drive(miss.steps(read.unreadable), backend)  # type: ignore[no-any-return]
        if type(found) is StaleValue:
            refresh = Refresh(CachedCall(spec, *place, every, kwargs), found)
            background.run(refresh.identity, refresh.do)
            found = found.value
        elif factory.context.near:
            spec.index.remember(backend, every, kwargs, read)
        if spec.options.cost is not None:
            spec.count_cost("saved", found)
        return found  # type: ignore[no-any-return]

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call in Django's own cache API, that is, with the namespace.

        Raises:
            TypeError: The function does not take these arguments.
            UnstableArgumentError: An argument has no stable form.
        """
        return self._cache_key(args, kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the result of a call; return whether there was one.

        Inside ``transaction.atomic()`` it is deleted at once and again after the commit.

        Raises:
            TypeError: The function does not take these arguments.
        """
        invalidation = self._invalidation(args, kwargs)
        if invalidation is None:
            return False
        on_commit(invalidation)
        return invalidation() > 0

    def invalidate_all(self) -> None:
        """Invalidate every result of the function by deleting one key; see ``invalidate()``."""
        invalidation = self._invalidation_of_all()
        on_commit(invalidation)
        invalidation()

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Delete the result of a call, call the function, and cache its result."""
        if invalidation := self._invalidation(args, kwargs):
            invalidation()
        return self(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[object] | None = None) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type[object] | None = None
    ) -> CachedFunction[Q, R]: ...
    def __get__(self, instance: object, owner: type[object] | None = None) -> Any:
        """Bind it, as a function is bound to the object it is looked up on."""
        return self if instance is None else self._bind(instance)


class AsyncCached(Wrapper, Generic[P]):
    """The common part of the wrappers of functions and generators that are awaited."""

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """See ``CachedFunction.cache_key``."""
        return self._cache_key(args, kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """See ``CachedFunction.invalidate``."""
        invalidation = self._invalidation(args, kwargs)
        if invalidation is None:
            return False
        await aon_commit(invalidation)
        return await invalidation.awaited() > 0

    async def invalidate_all(self) -> None:
        """See ``CachedFunction.invalidate_all``."""
        invalidation = self._invalidation_of_all()
        await aon_commit(invalidation)
        await invalidation.awaited()


class AsyncCachedFunction(AsyncCached[P], Generic[P, R]):
    """An ``async def`` function whose results are cached; called like the function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See ``CachedFunction.__call__``."""
        every = self._bound + args if self._bound else args
        spec = self._spec
        if spec.index.values is not None:
            near = spec.index.get(every, kwargs)
            if near is not NOT_FOUND:
                if spec.options.cost is not None:
                    spec.count_cost("saved", near)
                return near  # type: ignore[no-any-return]
        try:
            place = self._place(every, kwargs)
        except TypeError as error:
            # The call itself raises a better one, unless a decorator below changes arguments.
            value: R = await spec.function(*every, **kwargs)
            spec.warn_once("is called otherwise than its signature says", error)
            return value
        if place is None:
            return await spec.function(*every, **kwargs)  # type: ignore[no-any-return]
        backend, factory, result = place
        read = factory.read(result)
        found = await backend.store.arun(read)
        if found is MISSING:
            miss = Miss(CachedCall(spec, *place, every, kwargs))
            return await adrive(  # type: ignore[no-any-return]
                miss.steps(read.unreadable), backend
            )
        if type(found) is StaleValue:
            refresh = Refresh(CachedCall(spec, *place, every, kwargs), found)
            background.start(refresh.identity, refresh.ado)
            found = found.value
        elif factory.context.near:
            spec.index.remember(backend, every, kwargs, read)
        if spec.options.cost is not None:
            spec.count_cost("saved", found)
        return found  # type: ignore[no-any-return]

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See ``CachedFunction.refresh``."""
        if invalidation := self._invalidation(args, kwargs):
            await invalidation.awaited()
        return await self(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[object] | None = None) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], R],
        instance: S,
        owner: type[object] | None = None,
    ) -> AsyncCachedFunction[Q, R]: ...
    def __get__(self, instance: object, owner: type[object] | None = None) -> Any:
        """See ``CachedFunction.__get__``."""
        return self if instance is None else self._bind(instance)


class CachedClassMethod:
    """A cached function that binds to the class it is looked up on."""

    def __init__(self, function: Wrapper) -> None:
        self.__func__ = function

    def __get__(self, instance: object, owner: type[object]) -> Any:
        return self.__func__._bind(owner)


def rewrapped(
    method: classmethod[Any, ..., Any] | staticmethod[..., Any], decorate: Callable[[Any], Any]
) -> CachedClassMethod | staticmethod[..., Any]:
    """Return a class or static method of the decorated function."""
    decorated = decorate(method.__func__)
    is_class_method = isinstance(method, classmethod)
    return CachedClassMethod(decorated) if is_class_method else staticmethod(decorated)


def require_function(function: object, decorator: str) -> None:
    """Raise TypeError if a decorator cannot decorate it."""
    if not inspect.isroutine(function) and not hasattr(function, "__wrapped__"):
        raise TypeError(f"{decorator} decorates functions and methods, not {function!r}.")
    if inspect.ismethod(getattr(function, "func", None)):
        raise TypeError(
            f"method_decorator cannot be used with {decorator}, which it calls anew for each call. "
            f"Decorate the method itself: {decorator} is for methods, too."
        )


def is_generator(function: object) -> bool:
    """Return whether calling it returns a generator, of either kind."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
