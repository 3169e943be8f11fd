"""One ``CACHES`` entry: its keys, and the context of operations on them."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Final, TypeVar

from asgiref.sync import markcoroutinefunction
from django.core.cache.backends.base import MEMCACHE_MAX_KEY_LENGTH, BaseCache, default_key_func
from django.utils.functional import cached_property

from cache_layer.backends.near.decoded import DecodedValues
from cache_layer.backends.operations.base import Awaited, Operation, OperationContext
from cache_layer.backends.operations.factory import OperationFactory, ResultOperationFactory
from cache_layer.backends.outage import CacheUnavailableError, raises_on_outage
from cache_layer.backends.store import Store
from cache_layer.conf import options_of
from cache_layer.keyspace import Keyspace

T = TypeVar("T")

#: Largest number of namespaces, and of functions, whose operation factories are kept.
MAX_FACTORIES: Final = 500

_ODD_CHARACTER: Final = re.compile(r"[\x00-\x20\x7f]")

#: Attributes that Django reads anew for each key.
_KEY_ATTRIBUTES: Final = frozenset({"key_func", "key_prefix", "version"})
#: The copies of these attributes here.
_DERIVED: Final = ("store", "_keyspace", "_is_steady", "_decoded", "_operations")


class CacheAlias(BaseCache):
    """Keys, contexts and operations of one ``CACHES`` entry, for one thread or task."""

    def __init__(self, location: object, params: dict[str, object]) -> None:
        super().__init__(params)
        self._location = location
        self._params = params
        self._factories: dict[tuple[str, bool], OperationFactory] = {}
        #: The operation factories of decorated functions, by function.
        self.result_factories: dict[Hashable, ResultOperationFactory] = {}

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _KEY_ATTRIBUTES and "result_factories" in self.__dict__:
            for derived in _DERIVED:
                self.__dict__.pop(derived, None)
            self._factories.clear()
            self.result_factories.clear()
            self.store.allow_other_prefixes()

    @property
    @abstractmethod
    def store(self) -> Store:
        """The store that all instances of the alias in this process share."""

    @property
    def keyspace(self) -> Keyspace | None:
        """All keys of the alias at this moment; None if the KEY_FUNCTION hides them."""
        return self._keyspace if self._is_steady else self._make_keyspace()

    @property
    def context(self) -> OperationContext:
        """The context of operations without a namespace."""
        return self._operations.context

    def context_of(
        self, namespace: str, near: bool | None = None, *, computed: bool = False
    ) -> OperationContext:
        """Return the context of operations under a namespace.

        Args:
            namespace: The text before the keys and a colon.
            near: Whether reads use the near cache; None leaves it to the options.
            computed: Whether the values can be computed again, so that memory may always answer.
        """
        steady = self._is_steady
        keyspace = self.keyspace
        if keyspace is not None and not steady:
            # The owner of the keys may depend on the caller, such as the tenant of a request.
            self.store.circuit.keyspaces[keyspace] = None
        # Otherwise one name may stand for several keys, and the keyspace covers only some.
        near = steady and keyspace is not None and self.store.near_enabled(namespace, near)
        option = options_of(self._params).get("ON_OUTAGE")
        strict = not computed and raises_on_outage(option, namespace)
        return OperationContext(namespace, self.store.codec, keyspace, steady, near, strict)

    def own_key(self, name: str) -> str:
        """Return a key beside the caller's, under the same prefix: no scan or clear finds it."""
        keyspace = self.keyspace
        reserved = f"{self.key_prefix}:@cache_layer:" if keyspace is None else keyspace.reserved
        return f"{reserved}{name}"

    @property
    def single_prefix(self) -> bool:
        """Whether every instance of the alias makes the same keys.

        A project's own class may choose a prefix when it is made, which happens for each thread and
        task, and a prefix may be changed at any time.
        """
        return self.store.single_prefix and type(self).__init__ is CacheAlias.__init__

    def operations(self, namespace: str = "", *, computed: bool = False) -> OperationFactory:
        """Return the factory of operations on the keys of a namespace, for ``run`` and ``arun``.

        See ``context_of()`` for the arguments.
        """
        made = self._factories.get((namespace, computed))
        if made is None:
            if len(self._factories) >= MAX_FACTORIES:
                self._factories.clear()
            context = self.context_of(namespace, computed=computed)
            made = self._factories[namespace, computed] = OperationFactory(self, context)
        return made

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in the near cache, Redis or memory; return its result."""
        return self.store.run(operation)

    @markcoroutinefunction
    def arun(self, operation: Operation[T]) -> Awaited[T]:
        """See ``run()``."""
        return self.store.arun(operation)

    def unavailable(self, what: str) -> CacheUnavailableError:
        """Return the error of a call that only Redis can answer, with a remedy."""
        if self.store.transport is None:
            return CacheUnavailableError(
                f"{what} needs Redis, and this alias has no LOCATION: set it to a Redis URL."
            )
        return CacheUnavailableError(
            f"{what} needs Redis, which cannot be used now ({self.store.describe()['reason']}). "
            "Locks, nx and data structures are not answered from memory, which other processes "
            "do not see. Catch cache_layer.backends.CacheUnavailableError and do without, or "
            "repeat the call once get_metrics()['backend'] says that Redis answers again."
        )

    def validate_key(self, key: str) -> None:
        """Warn of the same keys as Django does, without a loop over every character."""
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or self.is_odd(key):
            super().validate_key(key)

    def validate_keys(self, keys: Sequence[str]) -> None:
        """Do the same for several keys."""
        if (
            type(self).validate_key is not CacheAlias.validate_key
            or self.is_odd("".join(keys))
            or max(map(len, keys), default=0) > MEMCACHE_MAX_KEY_LENGTH
        ):
            for key in keys:
                self.validate_key(key)

    @staticmethod
    def is_odd(text: str) -> bool:
        """Return whether Django warns of keys that contain this text."""
        # The first two are quick, and true of nearly all keys.
        if text.isprintable() and " " not in text:
            return False
        return _ODD_CHARACTER.search(text) is not None

    def _make_keyspace(self) -> Keyspace | None:
        return Keyspace.of(self.key_func, self.key_prefix, self.version)

    @cached_property
    def _keyspace(self) -> Keyspace | None:
        return self._make_keyspace()

    @cached_property
    def _is_steady(self) -> bool:
        """Whether a name stands for the same key for every caller."""
        cls = type(self)
        return (
            self.key_func is default_key_func
            and cls.make_key is BaseCache.make_key
            and cls.make_and_validate_key is BaseCache.make_and_validate_key
            # They are plain attributes, unless a class makes them anew for each caller.
            and not any(hasattr(cls, name) for name in _KEY_ATTRIBUTES)
        )

    @cached_property
    def _operations(self) -> OperationFactory:
        return self.operations()

    @cached_property
    def _decoded(self) -> DecodedValues | None:
        key_maker = (self.key_func, self.key_prefix, self.version)
        return self.store.decoded_values(self.context, key_maker)
