"""Makes the operations on the results of one decorated function."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import MEMCACHE_MAX_KEY_LENGTH

from cache_layer.backends.context import Lease
from cache_layer.backends.envelope import Entry
from cache_layer.backends.operations.base import Operation, raw
from cache_layer.backends.operations.factory import LONGEST
from cache_layer.backends.operations.leases import Release
from cache_layer.backends.operations.renewals import ClaimRefresh, Forget, Renew
from cache_layer.backends.operations.results import CachedRead, Claim, FillTagged, StaleValue
from cache_layer.conf import settings

if TYPE_CHECKING:
    from cache_layer.backends.resilient import ResilientCache


@dataclasses.dataclass(frozen=True, slots=True)
class ExpirationPolicy:
    """How long results are kept; seconds, but ``timeout`` is Django's."""

    timeout: Any
    #: After the end of freshness: how long a result is served while it is renewed.
    stale: float = 0
    #: Before the end of freshness: from when on it is renewed.
    early: float = 0
    #: Up to how much of the timeout is taken off at random.
    jitter: float = 0


class Results:
    """For one backend and namespace; see ``Operations``.

    ``stem`` is what all keys begin with, ``tags`` are what all results depend on, ``near`` tells
    whether they are kept in this process too (None: as the alias has it).
    """

    def __init__(
        self,
        backend: ResilientCache,
        namespace: str,
        terms: ExpirationPolicy,
        stem: str = "",
        tags: Sequence[str] = (),
        near: bool | None = None,
    ) -> None:
        self._make = make = backend.operations(namespace)
        self._context = backend.context_of(namespace, near)
        self._terms = terms
        self._tags = tags
        self._early = self._early_milliseconds()
        self._before = make.before
        if self._before is not None:
            # Made once: most calls have no other tags.
            self._full_tags = tuple(make.key(tag, None) for tag in tags)
            self._raw_tags = [raw(tag) for tag in self._full_tags]
            # What follows the stem has only characters that no cache minds.
            self._odd = backend.is_odd(f"{self._before}{stem}")
        self._validate = backend.validate_key

    @property
    def keeps(self) -> bool:
        """Whether results are kept at all."""
        return self._lifetime is None or self._lifetime > 0

    @property
    def _lifetime(self) -> int | None:
        return self._make.milliseconds(self._terms.timeout)

    def entry(self, key: str, tags: Iterable[str] = ()) -> Entry:
        """Return where the result of a call is kept, under which tags beside those of all."""
        if self._before is None:
            full_tags = tuple(self._make.key(tag, None) for tag in (*self._tags, *tags))
            return Entry(self._make.key(key, None), full_tags, [raw(tag) for tag in full_tags])
        full = self._before + key
        if self._odd or len(full) > MEMCACHE_MAX_KEY_LENGTH:
            self._validate(full)
        if not tags:
            return Entry(full, self._full_tags, self._raw_tags)
        more = [self._make.key(tag, None) for tag in tags]
        return Entry(full, (*self._full_tags, *more), self._raw_tags + [raw(tag) for tag in more])

    def read(self, entry: Entry) -> CachedRead:
        """Return the result, ``StaleValue`` or ``MISSING``."""
        return CachedRead(self._context, entry, self._early)

    def claim(self, entry: Entry, unreadable: bytes = b"") -> Claim:
        """Return the result, ``StaleValue`` or a ``Lease``."""
        lease_time = _lease_time()
        kept = min(LONGEST, (self._lifetime or 0) + _ms(self._terms.stale))
        longest = max(2 * lease_time, kept) + 60_000
        return Claim(self._context, entry, self._early, lease_time, longest, unreadable)

    def fill(self, entry: Entry, value: Any, lease: Lease) -> Operation[bool]:
        """Store a result under a lease; tells whether it is stored.

        :raises UnsupportedValueError: the serializer cannot store it exactly.
        """
        data = self._context.codec.encode(entry.key, value)
        return FillTagged(self._context, entry, lease, data, *self._times())

    def release(self, entry: Entry, lease: Lease) -> Operation[bool]:
        """Give a lease back."""
        return Release(self._context, entry.key, lease)

    def claim_refresh(self, entry: Entry, aged: StaleValue) -> Operation[bool]:
        """Take the renewing of a result on; tells whether it is the caller's to do."""
        return ClaimRefresh(self._context, entry.key, aged, _lease_time(), again=False)

    def release_refresh(self, entry: Entry, aged: StaleValue, seconds: float) -> Operation[bool]:
        """Let the renewing rest for some time."""
        return ClaimRefresh(self._context, entry.key, aged, _ms(seconds), again=True)

    def renew(self, entry: Entry, aged: StaleValue, value: Any) -> Operation[bool]:
        """Store a result in the place of another; tells whether it is stored.

        :raises UnsupportedValueError: the serializer cannot store it exactly.
        """
        data = self._context.codec.encode(entry.key, value)
        return Renew(self._context, entry.key, aged, data, *self._times())

    def forget(self, entry: Entry, aged: StaleValue) -> Operation[bool]:
        """Delete a result, if it is still that one."""
        return Forget(self._context, entry.key, aged)

    def _early_milliseconds(self) -> int:
        early = _ms(self._terms.early)
        # Otherwise what was just stored, with a short default timeout, would be renewed at once.
        lifetime = self._lifetime
        return early if lifetime is None or early < lifetime else 0

    def _times(self) -> tuple[int | None, int]:
        """Return the milliseconds to live and the end of freshness (0: they are the same)."""
        lifetime = self._lifetime
        if lifetime is None:
            return None, 0
        terms = self._terms
        fresh = max(1, lifetime - int(random.random() * _ms(terms.jitter)))  # noqa: S311
        if not terms.stale and not terms.early:
            return fresh, 0
        return min(LONGEST, fresh + _ms(terms.stale)), int(time.time() * 1000) + fresh


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _lease_time() -> int:
    return max(1, _ms(settings.LEASE_TTL))
