"""Counters of hits, misses and other events, exact under threads and summed over processes.

Every thread counts in a dictionary of its own, so that counting takes no lock; readers sum the
dictionaries. The sum over all processes is in a store that the backend provides (a Redis hash):
each process adds to it what it has counted since its last addition.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Final, Protocol, TypedDict

#: The counted events; each is reported for every namespace that was used.
EVENTS: Final = ("hits", "misses", "sets", "deletes", "errors")
#: Counted in place of ``hits`` when the near cache answers. Reports add it to ``hits``, too.
NEAR_HITS: Final = "near_hits"
#: The name under which the empty namespace is reported.
DEFAULT_NAMESPACE: Final = "default"
#: The name under which namespaces are reported together when there are too many.
OTHER_NAMESPACES: Final = "(other)"
#: Largest number of namespaces that are counted apart in one process.
MAX_NAMESPACES: Final = 1000

_Counts = dict[tuple[str, str], int]


class Report(TypedDict):
    """Counters and hit rates."""

    #: Hits in percent of reads, over all namespaces; 0.0 when nothing was read.
    hit_rate: float
    #: The same for each namespace.
    hit_rates: dict[str, float]
    #: Numbers by ``"<namespace>:<event>"``.
    metrics: dict[str, int]


class SharedStore(Protocol):
    """The store of the sums over all processes. The backend implements it.

    Both methods are synchronous and may raise. They are called by a background thread, at the end
    of the process, and by ``snapshot_all``.
    """

    def add_counts(self, deltas: Mapping[str, int]) -> None:
        """Add each number to the counter of that name, in one round trip."""

    def load_counts(self) -> Mapping[str, int]:
        """Return every counter."""


class _Owner:
    """Lives exactly as long as its thread: thread-local storage holds the only reference."""

    __slots__ = ("__weakref__",)


class _Local(threading.local):
    def __init__(self) -> None:
        self.owner = _Owner()
        self.counts: _Counts = {}
        _enroll(self.owner, self.counts)


_lock = threading.RLock()
_flush_lock = threading.Lock()
_threads: list[tuple[weakref.ref[_Owner], _Counts]] = []
_namespaces: set[str] = set()
_finished: _Counts = {}
_reset_at: _Counts = {}
_flushed: _Counts = {}


def counted_as(namespace: str) -> str:
    """Return the name under which a namespace is counted, which is its own for the first 1,000."""
    if namespace in _namespaces:
        return namespace
    with _lock:
        if namespace in _namespaces or len(_namespaces) < MAX_NAMESPACES:
            _namespaces.add(namespace)
            return namespace
    return OTHER_NAMESPACES


def record(namespace: str, event: str, n: int = 1) -> None:
    """Count occurrences of an event.

    Args:
        namespace: The namespace of the key; ``""`` for keys without one.
        event: One of ``EVENTS``, or ``NEAR_HITS``.
        n: The number of occurrences.
    """
    counts = own_counts.counts
    key = (namespace, event)
    before = counts.get(key)
    if before is None:
        key = (counted_as(namespace), event)
        before = counts.get(key, 0)
    counts[key] = before + n


def snapshot() -> Report:
    """Return this process's counters and hit rates."""
    with _lock:
        counts = _subtract(_total(), _reset_at)
    return _report(_named(counts))


def snapshot_all(store: SharedStore) -> Report:
    """Return the counters and hit rates of all processes, with the newest counts of this one.

    Raises:
        Exception: The store cannot be used.
    """
    flush(store)
    return _report(store.load_counts())


def hit_rate(namespace: str | None = None) -> float:
    """Return this process's hits in percent of reads, 0.0 when nothing was read.

    Args:
        namespace: The namespace to look at; None is all of them together.
    """
    report = snapshot()
    if namespace is None:
        return report["hit_rate"]
    return report["hit_rates"].get(namespace or DEFAULT_NAMESPACE, 0.0)


def flush(store: SharedStore) -> None:
    """Add the counts since the last flush to the store of all processes.

    If the store raises, the next flush adds the counts again. If the store had added them and only
    its answer was lost, they are counted twice.
    """
    with _flush_lock:
        with _lock:
            total = _total()
            deltas = _subtract(total, _flushed)
        if deltas:
            store.add_counts(_named(deltas))
            with _lock:
                _flushed.clear()
                _flushed.update(total)


def reset() -> None:
    """Set this process's counters to zero, and leave those of all processes as they are."""
    with _lock:
        _reset_at.clear()
        _reset_at.update(_total())


def _enroll(owner: _Owner, counts: _Counts) -> None:
    with _lock:
        _fold_finished()
        _threads.append((weakref.ref(owner), counts))


def _fold_finished() -> None:
    alive = []
    for owner, counts in _threads:
        if owner() is None:
            _add(_finished, counts)
        else:
            alive.append((owner, counts))
    _threads[:] = alive


def _total() -> _Counts:
    _fold_finished()
    total = _finished.copy()
    for _owner, counts in _threads:
        # A copy is atomic; iterating while the owner adds a key is not.
        _add(total, counts.copy())
    return total


def _add(total: _Counts, counts: _Counts) -> None:
    for key, n in counts.items():
        total[key] = total.get(key, 0) + n


def _subtract(counts: _Counts, base: _Counts) -> _Counts:
    return {key: n - base.get(key, 0) for key, n in counts.items() if n != base.get(key, 0)}


def _named(counts: _Counts) -> dict[str, int]:
    named: dict[str, int] = {}
    for (namespace, event), n in counts.items():
        for each in (event, "hits") if event == NEAR_HITS else (event,):
            name = f"{namespace or DEFAULT_NAMESPACE}:{each}"
            named[name] = named.get(name, 0) + n
    return named


def _report(named: Mapping[str, int]) -> Report:
    namespaces = {DEFAULT_NAMESPACE} | {name.rpartition(":")[0] for name in named}
    metrics = {f"{namespace}:{event}": 0 for namespace in sorted(namespaces) for event in EVENTS}
    metrics.update(named)
    hits = {namespace: metrics[f"{namespace}:hits"] for namespace in namespaces}
    reads = {name: hits[name] + metrics[f"{name}:misses"] for name in namespaces}
    return {
        "hit_rate": _percent(sum(hits.values()), sum(reads.values())),
        "hit_rates": {name: _percent(hits[name], reads[name]) for name in sorted(namespaces)},
        "metrics": metrics,
    }


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _after_fork() -> None:
    # Locks may have been held by threads that the child does not have, and the parent goes on
    # reporting what it counted before.
    global _lock, _flush_lock
    _lock = threading.RLock()
    _flush_lock = threading.Lock()
    for _owner, counts in _threads:
        counts.clear()
    for total in (_finished, _reset_at, _flushed):
        total.clear()


#: The counters of the current thread, for callers to which the call of ``record`` is too slow.
own_counts: Final = _Local()
os.register_at_fork(after_in_child=_after_fork)
