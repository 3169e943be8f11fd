"""Renewing a result in the background, while the old one goes on being served."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from cache_layer.backends import ResilientCache
from cache_layer.backends.envelope import Entry
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.results import StaleValue
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.functions.compute import Call, Effect, Run, Steps, adrive, drive
from cache_layer.functions.spec import CachedFunctionSpec


class Renewal:
    """Of one result, by whoever of all processes takes it on first."""

    def __init__(
        self,
        spec: CachedFunctionSpec,
        backend: ResilientCache,
        entry: Entry,
        aged: StaleValue,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._recipe = spec
        self._backend = backend
        self._results = spec.results(backend)
        self._entry = entry
        self._aged = aged
        self._call = Call(spec.function, args, kwargs)

    @property
    def identity(self) -> tuple[str, bytes]:
        """What no two are under way for in one process."""
        return self._entry.key, self._aged.identity

    def do(self) -> None:
        """Do it."""
        drive(self.steps())

    async def ado(self) -> None:
        """See ``do()``."""
        await adrive(self.steps())

    def steps(self) -> Steps:
        """Call the function and store what it returns, unless somebody else does already."""
        if not (yield from self._do(self._results.claim_refresh(self._entry, self._aged))):
            return None, None
        try:
            value, error = yield self._call
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled: the next caller begins anew.
            yield from self._do(self._results.release_refresh(self._entry, self._aged, 0))
            raise
        if error is None:
            self._recipe.succeeded()
            yield from self._keep(value)
        else:
            kept = self._recipe.options.fail_safe or self._aged.is_fresh
            self._recipe.failed(error, kept=kept)
            yield from self._after_failure(kept)
        return None, None

    def _keep(self, value: Any) -> Generator[Effect, Any, None]:
        operation = self._results.forget(self._entry, self._aged)
        if value is not None or self._recipe.options.cache_none:
            try:
                operation = self._results.renew(self._entry, self._aged, value)
            except UnsupportedValueError as error:
                self._recipe.warn_once("returned a value that cannot be stored", error)
        yield from self._do(operation)

    def _after_failure(self, kept: bool) -> Generator[Effect, Any, None]:
        if kept:
            pause = settings.RENEWAL_PAUSE
            yield from self._do(self._results.release_refresh(self._entry, self._aged, pause))
        else:
            yield from self._do(self._results.forget(self._entry, self._aged))

    def _do(self, operation: Operation[bool]) -> Generator[Effect, Any, bool]:
        return bool((yield Run(self._backend, operation)))
