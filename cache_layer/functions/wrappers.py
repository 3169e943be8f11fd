"""What ``cached`` makes of a function: it is called like the function, and has a few methods."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from cache_layer.backends.near.decoded import NOT_FOUND
from cache_layer.backends.operations.results import MISSING, StaleValue
from cache_layer.functions.background import background
from cache_layer.functions.compute import Miss, adrive, drive
from cache_layer.functions.invalidation import Deletion
from cache_layer.functions.refresh import Renewal
from cache_layer.functions.spec import CachedFunctionSpec
from cache_layer.functions.transactions import aon_commit, on_commit
from cache_layer.interface import resilient_cache

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class _Base:
    """What both kinds share: looking like the function, and binding like it."""

    def __init__(self, spec: CachedFunctionSpec) -> None:
        function = spec.function
        functools.update_wrapper(cast("Any", self), function)
        # With these, inspect takes it for a function, awaited or not.
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        self._recipe = spec
        self._bound: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<cached {self._recipe.function.__qualname__}>"

    def __reduce__(self) -> Any:
        # As functions are pickled and copied: by name.
        name = self._recipe.function.__qualname__
        return (getattr, (self._bound[0], name.rpartition(".")[2])) if self._bound else name

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self._recipe.function)
        parameters = list(signature.parameters.values())
        return signature.replace(parameters=parameters[len(self._bound) :])

    def _deletion(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deletion | None:
        key = self._recipe.key_or_none(self._bound + args, kwargs)
        return None if key is None else Deletion(self._recipe.options.namespace, [key])

    def _deletion_of_all(self) -> Deletion:
        return Deletion(self._recipe.options.namespace, [self._recipe.tag])

    def _bind(self, instance: object) -> Any:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._bound = (instance,)
        return bound


class CachedFunction(_Base, Generic[P, R]):
    """A function whose results are kept; called like the function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the kept result, or call the function and keep what it returns."""
        every = self._bound + args if self._bound else args
        spec = self._recipe
        near = spec.nearby.get(every, kwargs)
        if near is not NOT_FOUND:
            return near  # type: ignore[no-any-return]
        backend = resilient_cache()
        results = spec.results(backend)
        entry = spec.entry(results, every, kwargs)
        if entry is None:
            return spec.function(*every, **kwargs)  # type: ignore[no-any-return]
        read = results.read(entry)
        found = backend.run(read)
        if found is MISSING:
            miss = Miss(spec, backend, entry, every, kwargs)
            return drive(miss.steps(read.unreadable))  # type: ignore[no-any-return]
        if type(found) is StaleValue:
            renewal = Renewal(spec, backend, entry, found, every, kwargs)
            background.run(renewal.identity, renewal.do)
            return found.value  # type: ignore[no-any-return]
        spec.nearby.learn(backend, every, kwargs, read)
        return found  # type: ignore[no-any-return]

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call, in Django's own cache API: with the namespace.

        :raises UnstableArgumentError: an argument has no stable form.
        """
        return self._recipe.full_key(self._bound + args, kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; return whether there was one.

        Inside ``transaction.atomic()`` it is forgotten at once and again after the commit.
        """
        delete = self._deletion(args, kwargs)
        if delete is None:
            return False
        on_commit(delete)
        return delete() > 0

    def invalidate_all(self) -> None:
        """Forget every result of the function, at the cost of one key; as ``invalidate`` does."""
        delete = self._deletion_of_all()
        on_commit(delete)
        delete()

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Forget the result of a call, call the function, and keep what it returns."""
        if delete := self._deletion(args, kwargs):
            delete()
        return self(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None
    ) -> CachedFunction[Q, R]: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """Bind it, as a function is bound to the object it is looked up on."""
        return self if instance is None else self._bind(instance)


class AsyncCachedFunction(_Base, Generic[P, R]):
    """An ``async def`` function whose results are kept; called like the function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See ``CachedFunction.__call__``."""
        every = self._bound + args if self._bound else args
        spec = self._recipe
        near = spec.nearby.get(every, kwargs)
        if near is not NOT_FOUND:
            return near  # type: ignore[no-any-return]
        backend = resilient_cache()
        results = spec.results(backend)
        entry = spec.entry(results, every, kwargs)
        if entry is None:
            return await spec.function(*every, **kwargs)  # type: ignore[no-any-return]
        read = results.read(entry)
        found = await backend.arun(read)
        if found is MISSING:
            miss = Miss(spec, backend, entry, every, kwargs)
            return await adrive(miss.steps(read.unreadable))  # type: ignore[no-any-return]
        if type(found) is StaleValue:
            renewal = Renewal(spec, backend, entry, found, every, kwargs)
            background.start(renewal.identity, renewal.ado)
            return found.value  # type: ignore[no-any-return]
        spec.nearby.learn(backend, every, kwargs, read)
        return found  # type: ignore[no-any-return]

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """See ``CachedFunction.cache_key``."""
        return self._recipe.full_key(self._bound + args, kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """See ``CachedFunction.invalidate``."""
        delete = self._deletion(args, kwargs)
        if delete is None:
            return False
        await aon_commit(delete)
        return await delete.awaited() > 0

    async def invalidate_all(self) -> None:
        """See ``CachedFunction.invalidate_all``."""
        delete = self._deletion_of_all()
        await aon_commit(delete)
        await delete.awaited()

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See ``CachedFunction.refresh``."""
        if delete := self._deletion(args, kwargs):
            await delete.awaited()
        return await self(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], R],
        instance: S,
        owner: type[Any] | None = None,
    ) -> AsyncCachedFunction[Q, R]: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """See ``CachedFunction.__get__``."""
        return self if instance is None else self._bind(instance)
