from __future__ import annotations

import threading

import pytest
from redis import exceptions

from cache_layer.backends.recovery import Circuit
from cache_layer.backends.redis.errors import as_unavailable
from cache_layer.breaker import Breaker


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(failures: int = 3) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(lambda: failures, clock), clock


def test_opens_after_so_many_failures_in_a_row() -> None:
    breaker, clock = make()
    clock.now += 5
    assert [breaker.failure("lost", decisive=False) for _ in range(3)] == [False, False, True]
    assert not breaker.closed
    assert (breaker.reason, breaker.since) == ("lost", 1005.0)


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker, _ = make()
    for _ in range(5):
        breaker.failure("lost", decisive=False)
        breaker.failure("lost", decisive=False)
        breaker.success()
    assert breaker.closed
    assert breaker.failed == 0


def test_a_decisive_failure_opens_at_once() -> None:
    breaker, _ = make()
    assert breaker.failure("timeout", decisive=True)
    assert not breaker.closed


def test_only_the_failure_that_opens_it_says_so() -> None:
    breaker, clock = make()
    breaker.failure("timeout", decisive=True)
    clock.now += 1
    assert not breaker.failure("another that was under way", decisive=True)
    assert (breaker.reason, breaker.since) == ("timeout", 1000.0)


def test_trust_takes_good_probes_in_a_row() -> None:
    breaker, _ = make()
    breaker.failure("timeout", decisive=True)
    # One is not enough: a hung server may still hold commands when it answers again.
    probes = [True, False, True, False, True, True]
    trusted = [breaker.probe(healthy=healthy) for healthy in probes]
    assert trusted == [False, False, False, False, False, True]


def test_good_probes_of_an_earlier_outage_do_not_count() -> None:
    breaker, _ = make()
    breaker.failure("timeout", decisive=True)
    assert [breaker.probe(healthy=True) for _ in range(2)] == [False, True]
    breaker.close()
    breaker.failure("timeout", decisive=True)
    assert not breaker.probe(healthy=True)


def test_closing_forgets_reason_and_failures() -> None:
    breaker, clock = make()
    breaker.failure("timeout", decisive=True)
    clock.now += 60
    breaker.close()
    assert breaker.closed
    assert (breaker.reason, breaker.since, breaker.failed) == ("", 1060.0, 0)


def test_connections_made_before_or_during_an_outage_are_of_an_earlier_epoch() -> None:
    breaker, _ = make()
    before = breaker.epoch
    breaker.failure("timeout", decisive=True)
    # One that was being made as the circuit opened.
    during = breaker.epoch
    breaker.drain()
    assert len({before, during, breaker.epoch}) == 3
    breaker.close()
    assert breaker.epoch not in (before, during)


def test_a_replay_that_fails_ends_the_draining() -> None:
    circuit = Circuit(threading.RLock(), has_redis=True)
    circuit.breaker.failure("hung", decisive=True)
    circuit.breaker.drain()
    assert not circuit.give_back({})
    assert circuit.breaker.draining
    assert not circuit.give_back({}, "full")
    assert not circuit.breaker.draining
    assert circuit.breaker.reason == "full"


@pytest.mark.parametrize(
    ("error", "decisive"),
    [
        (exceptions.TimeoutError("no reply"), True),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), True),
        (exceptions.ResponseError("unknown command"), True),
        (exceptions.AuthenticationError("invalid password"), True),
        (exceptions.ConnectionError("reset by peer"), False),
        (OSError("no route to host"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_a_lost_connection_is_tried_again_and_other_failures_open_at_once(
    error: Exception, decisive: bool
) -> None:
    outage = as_unavailable(error)
    assert outage is not None
    assert outage.decisive is decisive
