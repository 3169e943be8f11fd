"""How one function is cached, and what of it was already complained about."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from cache_layer.backends import ResilientCache
from cache_layer.backends.envelope import Entry
from cache_layer.backends.operations.result_factory import ExpirationPolicy, Results
from cache_layer.backends.resilient import MOST_KEPT
from cache_layer.exceptions import UnstableArgumentError
from cache_layer.functions.arguments import CallKeys
from cache_layer.functions.fast_path import ArgumentIndex
from cache_layer.functions.tags import TagTemplates

logger = logging.getLogger("cache_layer")


@dataclasses.dataclass(frozen=True)
class Options:
    """What ``cached`` was given, checked."""

    namespace: str
    terms: ExpirationPolicy
    cache_none: bool
    lock: bool
    fail_safe: bool
    near: bool | None


class CachedFunctionSpec:
    """One decorated function; shared by its bound methods, threads and tasks."""

    def __init__(
        self,
        function: Callable[..., Any],
        keys: CallKeys,
        tags: TagTemplates,
        options: Options,
    ) -> None:
        self.function = function
        self.options = options
        self.nearby = ArgumentIndex()
        self._keys = keys
        self._tags = tags
        self._complained: set[str] = set()
        self._failing = False

    @property
    def name(self) -> str:
        """How the log calls the function."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def tag(self) -> str:
        """The tag that every result has."""
        return self._keys.tag

    def results(self, backend: ResilientCache) -> Results:
        """Return what makes operations on the results."""
        made = backend.results.get(self)
        if made is None:
            if len(backend.results) >= MOST_KEPT:
                backend.results.clear()
            options = self.options
            tags = (self._keys.tag, *self._tags.fixed)
            made = Results(
                backend, options.namespace, options.terms, self._keys.stem, tags, options.near
            )
            backend.results[self] = made
        return made

    def entry(
        self, results: Results, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Entry | None:
        """Return where the result of a call is kept; None when it runs uncached."""
        try:
            key = self._keys.key(args, kwargs)
            if not self._tags.vary:
                return results.entry(key)
            return results.entry(key, self._tags.keys(self._keys.arguments(args, kwargs)))
        except UnstableArgumentError as error:
            self.warn_once("has an argument without a stable form", error)
        except TypeError:
            # The call itself raises a better one.
            pass
        return None

    def key_or_none(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the key of a call inside the namespace; None when it runs uncached."""
        try:
            return self._keys.key(args, kwargs)
        except TypeError:
            return None

    def full_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call with the namespace before it."""
        key = self._keys.key(args, kwargs)
        return f"{self.options.namespace}:{key}" if self.options.namespace else key

    def warn_once(self, what: str, error: Exception) -> None:
        """Log why calls are not cached, once for each reason."""
        if what not in self._complained:
            self._complained.add(what)
            logger.warning("%s %s, so such calls are not cached: %s", self.name, what, error)

    def failed(self, error: Exception, *, kept: bool) -> None:
        """Log that renewing a result raised: once, until it works again."""
        if not self._failing:
            self._failing = True
            what = "goes on being served" if kept else "is served no more"
            logger.warning(
                "%s raised while a result was renewed; the old one %s.",
                self.name,
                what,
                exc_info=error,
            )

    def succeeded(self) -> None:
        """Log that the function works again, if it did not."""
        if self._failing:
            self._failing = False
            logger.info("%s works again.", self.name)
