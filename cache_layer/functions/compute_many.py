"""Finds the results of many items that are kept, and computes the others at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from cache_layer.aliases import Function, Value
from cache_layer.backends import MISSING, Lease, ResilientCache
from cache_layer.exceptions import UnstableArgumentError, UnsupportedValueError
from cache_layer.functions.arguments import Args, Kwargs
from cache_layer.functions.compute import CachedCall, Compute, Effects, Miss, Outcome
from cache_layer.functions.singleflight import SingleFlight, acquire, computing, finish
from cache_layer.functions.spec import CachedFunctionSpec


class BatchSpec(NamedTuple):
    """A decorated function of many items."""

    #: The options, and the function of one item.
    one: CachedFunctionSpec
    function: Function
    #: The argument with the items.
    over: str


class _Missing(NamedTuple):
    """The result of one item that this call computes."""

    name: object
    item: object
    #: None where the result cannot be kept.
    call: CachedCall | None = None
    lease: Lease | None = None
    flight: SingleFlight | None = None


class Batch:
    """One call: finds the results that are kept, and computes the others at once."""

    def __init__(
        self, spec: BatchSpec, backend: ResilientCache, args: Args, kwargs: Kwargs
    ) -> None:
        self._spec = spec
        self._arguments = spec.one.keys.arguments(args, kwargs)
        self._factory = backend.result_factories.get(spec.one) or spec.one.factory(backend)
        self._values: dict[object, Value] = {}
        self._missing: list[_Missing] = []
        #: The calls of items that other callers compute, with their leases.
        self._awaited: list[tuple[object, CachedCall, Lease]] = []
        # Of each item the key of its result, or what no other has.
        self._names: list[object] = []
        self._calls: dict[object, CachedCall] = {}
        for item in cast("Iterable[object]", self._arguments[spec.over]):
            name, arguments = self._add(item), {**self._arguments, spec.over: item}
            if isinstance(name, str) and name not in self._calls:
                tags = spec.one.tags
                more = tags.keys(arguments) if tags.vary else ()
                place = self._factory.result_key(name, more)
                self._calls[name] = CachedCall(
                    spec.one, backend, self._factory, place, (), arguments
                )

    def steps(self) -> Effects[Outcome]:
        """Return the results in the order of the items."""
        calls = self._calls
        if self._factory.is_storing:
            reads = {name: self._factory.read(call.result) for name, call in calls.items()}
            found = (yield self._factory.read_all([*reads.values()])) if reads else []
            unread = {}
            for (name, read), value in zip(reads.items(), found, strict=True):
                if value is MISSING:
                    unread[name] = read.unreadable
                else:
                    self._found(name, value)
            if unread:
                yield from self._claim(unread)
        else:
            self._missing += [_Missing(name, self._item(call)) for name, call in calls.items()]
        if self._missing and (error := (yield from self._compute())) is not None:
            return None, error
        for name, call, lease in self._awaited:
            value, error = yield from Miss(call).steps(b"", lease)
            if error is not None:
                return None, error
            self._values[name] = value
        return [self._values[name] for name in self._names], None

    def _add(self, item: object) -> object:
        """Return the name of an item's result in this call."""
        one = self._spec.one
        name: object
        try:
            name = one.keys.key((), {**self._arguments, self._spec.over: item})
        except UnstableArgumentError as error:
            one.warn_once("has an argument without a stable form", error)
            name = len(self._names)
            self._missing.append(_Missing(name, item))
        self._names.append(name)
        return name

    def _item(self, call: CachedCall) -> object:
        return call.kwargs[self._spec.over]

    def _found(self, name: object, value: Value) -> None:
        self._values[name] = value
        self._spec.one.count_cost("saved", value)

    def _claim(self, unread: Mapping[object, bytes]) -> Effects[None]:
        """Claim the leases of missing results, and find out who computes each."""
        factory = self._factory
        calls = [self._calls[name] for name in unread]
        claims = [
            factory.claim(call.result, unreadable)
            for call, unreadable in zip(calls, unread.values(), strict=True)
        ]
        try:
            found = yield factory.together(claims)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled before the replies were there.
            yield factory.together(
                [
                    factory.release(call.result, claim.claimed)
                    for call, claim in zip(calls, claims, strict=True)
                    if claim.claimed is not None
                ]
            )
            raise
        for name, call, lease in zip(unread, calls, found, strict=True):
            if not isinstance(lease, Lease):
                self._found(name, lease)
                continue
            flight, leads = acquire(lease.token, owner=lease.owner)
            if leads or (flight is not None and flight in computing.get()):
                flight = flight if leads else None
                self._missing.append(_Missing(name, self._item(call), call, lease, flight))
            else:
                self._awaited.append((name, call, lease))

    def _compute(self) -> Effects[Exception | None]:
        """Call the function for all missing items, and store what it returns."""
        flights = [each.flight for each in self._missing if each.flight is not None]
        before = computing.set((*computing.get(), *flights))
        left = [each for each in self._missing if each.lease is not None]
        try:
            items = [each.item for each in self._missing]
            arguments = {**self._arguments, self._spec.over: items}
            returned, error = yield Compute(self._spec.function, (), arguments)
            results, error = self._checked(returned) if error is None else ([], error)
            if error is None:
                for each, value in zip(self._missing, results, strict=True):
                    self._values[each.name] = value
                    self._spec.one.count_cost("spent", value)
                left = yield from self._store()
            for each in left:
                self._hand_over(each, error)
            yield from self._give_back(left)
            return error
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled: whoever waits starts over, under a lease of their own.
            yield from self._give_back(left)
            raise
        finally:
            for flight in flights:
                finish(flight)
            # A coroutine that nobody finishes is closed in another context.
            with contextlib.suppress(ValueError):
                computing.reset(before)

    def _checked(self, returned: Value) -> tuple[list[Value], Exception | None]:
        name, wanted = self._spec.one.name, len(self._missing)
        if isinstance(returned, Mapping | str | bytes) or not isinstance(returned, Iterable):
            got = type(returned).__name__
            return [], TypeError(f"{name} has to return one result for each item, not a {got}.")
        results = list(returned)
        if len(results) != wanted:
            return [], ValueError(f"{name} returned {len(results)} results for {wanted} items.")
        return results, None

    def _store(self) -> Effects[list[_Missing]]:
        """Store the results; return those with a lease that were not stored."""
        one = self._spec.one
        stores, stored = [], []
        for each in self._missing:
            value = self._values[each.name]
            if each.call is None or each.lease is None:
                continue
            if value is None and not one.options.cache_none:
                continue
            try:
                stores.append(self._factory.fill(each.call.result, value, each.lease))
                stored.append(each)
            except UnsupportedValueError as error:
                one.warn_once("returned a value that cannot be stored", error)
        answers = (yield self._factory.together(stores)) if stores else []
        kept = {each.name for each, answer in zip(stored, answers, strict=True) if answer}
        return [each for each in self._missing if each.lease is not None and each.name not in kept]

    def _hand_over(self, each: _Missing, error: Exception | None) -> None:
        """Give a result that was not stored to the callers who wait for it."""
        flight, call = each.flight, each.call
        if flight is None or call is None or not flight.awaited:
            return
        if error is None:
            with contextlib.suppress(UnsupportedValueError):
                codec = self._factory.context.codec
                flight.outcome = codec.encode(call.result.key, self._values[each.name])
        flight.alone = flight.outcome is None

    def _give_back(self, left: Sequence[_Missing]) -> Effects[None]:
        releases = [
            self._factory.release(each.call.result, each.lease)
            for each in left
            if each.call is not None and each.lease is not None
            # Who runs beside the owner must not end the owner's lease.
            if each.flight is not None or each.lease.owner
        ]
        if releases:
            yield self._factory.together(releases)
