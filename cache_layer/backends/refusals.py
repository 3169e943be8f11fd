"""Names the features that Redis may refuse, and what the cache does without each of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Final


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """A feature of Redis that the cache uses where it may."""

    #: What the cache does without it, after "the cache does without".
    without: str
    #: A command that needs it and changes nothing; empty if another place finds the refusal.
    #: ``KEY`` stands for a key of the alias that is usually missing.
    trial: tuple[Any, ...] = ()


#: The place of the key in a trial.
KEY: Final = object()

_LATE: Final = "a command that the network delivers after an outage may still take effect"

#: Every feature by its name in ``get_metrics()``, the log and the system check.
FEATURES: Final = {
    "CLIENT ID": Feature(_LATE),
    "CLIENT KILL": Feature(_LATE, ("CLIENT", "KILL", "ID", 2**62)),
    "CLIENT TRACKING": Feature("the near cache stays off", ("CLIENT", "TRACKING", "OFF")),
    "INFO": Feature("a Redis that restarted is not noticed, and what it restores is served"),
    "SCAN": Feature(
        "keys(), clear() and whatever takes a pattern raise an error, and a Redis that restarted "
        "is not emptied",
        ("SCAN", 0, "COUNT", 1),
    ),
    "EVAL": Feature(
        "get_or_set() and @cached compute each time and keep nothing, and incr() raises an error",
        ("EVAL", "return 1", 0),
    ),
    "DEL": Feature("keys are deleted by GETDEL, in scripts", ("DEL", KEY)),
    "PTTL": Feature("ttl() raises an error, and the near cache keeps nothing", ("PTTL", KEY)),
    "PEXPIRE": Feature("lifetimes are changed by GETEX, in scripts", ("PEXPIRE", KEY, 1000)),
    "RENAME": Feature("incr_version() raises an error", ("RENAME", KEY, KEY)),
    "PUBLISH": Feature("nothing is published to other processes"),
    "SUBSCRIBE": Feature("nothing is heard from other processes"),
    "counters": Feature("get_metrics() counts this process alone"),
}


def trials(key: bytes) -> dict[str, tuple[Any, ...]]:
    """Return the commands that show what is refused, by the name of the feature."""
    return {
        name: tuple(key if part is KEY else part for part in feature.trial)
        for name, feature in FEATURES.items()
        if feature.trial
    }
