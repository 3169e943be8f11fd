"""What ``cached`` makes of a function: it is called like the function, and has a few methods."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from cache_layer.backends import Lease
from cache_layer.commit import aafter_commit, after_commit
from cache_layer.computation import Miss, Recipe, adrive, drive
from cache_layer.interface import resilient_cache

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class _Deletion:
    """Of one call's result; looks the backend up when it is done, in the thread that does it."""

    def __init__(self, recipe: Recipe, key: str) -> None:
        self._recipe = recipe
        self._key = key

    def __call__(self) -> bool:
        backend = resilient_cache()
        make = backend.operations(self._recipe.namespace)
        return backend.run(make.delete(self._key, None))

    async def awaited(self) -> bool:
        backend = resilient_cache()
        make = backend.operations(self._recipe.namespace)
        return await backend.arun(make.delete(self._key, None))


class _Base:
    """What both kinds share: looking like the function, and binding like it."""

    def __init__(self, recipe: Recipe) -> None:
        function = recipe.function
        functools.update_wrapper(cast("Any", self), function)
        # With these, inspect takes it for a function, awaited or not.
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        self._recipe = recipe
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
        recipe = self._recipe
        key = recipe.key_or_none(every, kwargs)
        if key is None:
            return recipe.function(*every, **kwargs)  # type: ignore[no-any-return]
        backend = resilient_cache()
        found = backend.run(backend.operations(recipe.namespace).get_or_lease(key, None))
        if type(found) is not Lease:
            return found  # type: ignore[no-any-return]
        miss = Miss(recipe, backend, key, every, kwargs)
        return drive(miss.steps(found))  # type: ignore[no-any-return]

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call, in Django's own cache API: with the namespace.

        :raises UnstableArgumentError: an argument has no stable form.
        """
        return self._recipe.full_key(self._bound + args, kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; return whether there was one.

        Inside ``transaction.atomic()`` it is forgotten at once and again after the commit.
        """
        key = self._recipe.key_or_none(self._bound + args, kwargs)
        if key is None:
            return False
        delete = _Deletion(self._recipe, key)
        after_commit(delete)
        return delete()

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Forget the result of a call, call the function, and keep what it returns."""
        key = self._recipe.key_or_none(self._bound + args, kwargs)
        if key is not None:
            _Deletion(self._recipe, key)()
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
        recipe = self._recipe
        key = recipe.key_or_none(every, kwargs)
        if key is None:
            return await recipe.function(*every, **kwargs)  # type: ignore[no-any-return]
        backend = resilient_cache()
        found = await backend.arun(backend.operations(recipe.namespace).get_or_lease(key, None))
        if type(found) is not Lease:
            return found  # type: ignore[no-any-return]
        miss = Miss(recipe, backend, key, every, kwargs)
        return await adrive(miss.steps(found))  # type: ignore[no-any-return]

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """See ``CachedFunction.cache_key``."""
        return self._recipe.full_key(self._bound + args, kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """See ``CachedFunction.invalidate``."""
        key = self._recipe.key_or_none(self._bound + args, kwargs)
        if key is None:
            return False
        delete = _Deletion(self._recipe, key)
        await aafter_commit(delete)
        return await delete.awaited()

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See ``CachedFunction.refresh``."""
        key = self._recipe.key_or_none(self._bound + args, kwargs)
        if key is not None:
            await _Deletion(self._recipe, key).awaited()
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
