"""The rules of the protocol, each by a name; leaving one out must break the promise."""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """What the cache does, and where in ``cache_layer`` it does so."""

    LEASE = "Fill stores only under its lease (operations/leases.py)"
    LEASE_TAGS = "Claim shares a lease of the current tag tokens only (operations/leases.py)"
    FILL_TAGS = "Fill compares the tag tokens of its lease (operations/leases.py)"
    TAGS = "a read compares the tag tokens of an envelope (operations/results.py)"
    RANDOM_TAGS = "a tag that was lost gets another token (operations/leases.py)"
    FLIGHTS = "a flight is found by the token of the lease (functions/singleflight.py)"
    SHIELD = "a cancelled call invalidates nevertheless (functions/invalidation.py)"
    REMEMBER = "the journal remembers what memory does (store.py)"
    REPLAY = "Redis is read after the replay (recovery.py)"
    OWN_REPLAY = "writers replay their own operations while the circuit drains (store.py)"
    GIVE_BACK = "what was taken and not replayed is remembered again (store.py)"
    CLEAR = "memory is emptied when the circuit closes (recovery.py)"
    END_CONNECTIONS = "recovery ends the connections of before the outage (recovery.py)"
    SERVER = "a server other than the trusted one is not read (redis/handshake.py)"
    PURGE = "another server's keys are dropped before it is read (recovery.py)"
    PURGE_FIRST = "the clean mark is set after the keys were dropped (recovery.py)"
    PURGED = "the server that was purged is trusted, not one met since (recovery.py)"
    MARK = "a process that begins compares the clean mark (redis/handshake.py)"
    NEAR_OWN = "a write drops the process's own copy (store.py)"
    NEAR_REPORT = "a report drops the copy (near/tracking.py)"
    NEAR_PENDING = "a change cancels the reads that are pending (near/cache.py)"
    NEAR_ANEW = "the near cache begins empty whenever it is turned on (near/cache.py)"
