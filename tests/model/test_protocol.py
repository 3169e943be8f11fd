"""The protocol keeps its promise in every interleaving, and breaks it without any of its rules."""

from __future__ import annotations

import pytest

from tests.model.explorer import explore
from tests.model.rules import Rule
from tests.model.settings import SETTINGS

#: Seconds of one quiet processor: 28, 16, 9, 8 and 4; all others less than 4.
LONG = {"tags", "keys", "near own", "processes", "near"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in SETTINGS],
)
def test_nothing_is_served_that_was_invalidated_before_the_read_began(name: str) -> None:
    explored = explore(SETTINGS[name])
    print(f"{name}: {explored.states} states, {explored.steps} steps")
    assert explored.counterexample is None, f"\n{explored.counterexample}"
    # It explored something.
    assert explored.states > 500


FEW = {"evictions": 0, "cancellations": 0}

#: Where each rule is missed, and what need not happen for that.
MISSED: dict[Rule, tuple[str, dict[str, int]]] = {
    Rule.LEASE: ("keys", {}),
    Rule.LEASE_TAGS: ("tags", {}),
    Rule.FILL_TAGS: ("tags", {}),
    Rule.TAGS: ("tags", {}),
    Rule.RANDOM_TAGS: ("tags", {}),
    Rule.FLIGHTS: ("keys", {}),
    Rule.SHIELD: ("keys", {}),
    Rule.REMEMBER: ("keys", {}),
    Rule.REPLAY: ("keys", {}),
    Rule.OWN_REPLAY: ("keys", {}),
    Rule.GIVE_BACK: ("writes", {"evictions": 0}),
    Rule.CLEAR: ("keys", FEW),
    Rule.END_CONNECTIONS: ("writes", FEW),
    Rule.SERVER: ("processes", {}),
    Rule.PURGE: ("processes", {}),
    Rule.PURGE_FIRST: ("processes", {}),
    Rule.PURGED: ("processes", {}),
    Rule.MARK: ("start", {}),
    Rule.NEAR_OWN: ("near own", {}),
    Rule.NEAR_REPORT: ("near", {}),
    Rule.NEAR_PENDING: ("near", {}),
    Rule.NEAR_ANEW: ("near", {}),
}


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_each_rule_is_needed(rule: Rule) -> None:
    name, overrides = MISSED[rule]
    explored = explore(SETTINGS[name]._replace(**overrides), without=rule, limit=100_000)
    assert explored.counterexample is not None, f"nothing happens without: {rule.value}"
    print(f"without: {rule.value}\n{explored.counterexample}")


def test_a_server_whose_mark_was_evicted_is_taken_for_a_good_one() -> None:
    """The known limit: a process that begins after a restart has nothing else to compare."""
    explored = explore(SETTINGS["start"]._replace(evictions=1, evicts_mark=True))
    assert explored.counterexample is not None
    whats = [what for _who, what in explored.counterexample.labels]
    assert "evicts the mark" in whats
    assert "restarts from its snapshot" in whats
