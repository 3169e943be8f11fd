"""Explores every interleaving, breadth first: a counterexample is a shortest one."""

from __future__ import annotations

import dataclasses

from tests.model.base import Label, Setting
from tests.model.protocol import Protocol
from tests.model.rules import Rule
from tests.model.state import Frozen, World


@dataclasses.dataclass(frozen=True)
class Explored:
    """What an exploration found."""

    states: int
    steps: int
    #: A shortest way to a stale read; None if there is none.
    counterexample: Counterexample | None


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """The steps to a stale read, readable."""

    setting: Setting
    labels: list[Label]
    served: int
    least: int

    def __str__(self) -> str:
        width = max(len(who) for who, _what in self.labels)
        lines = [f"{self.setting.name}: a stale read after {len(self.labels)} steps"]
        for number, (process, items) in enumerate(self.setting.programs, start=1):
            lines.append(f"  client {number} in {'AB'[process]}: {', then '.join(items)}")
        lines += [
            f"{number:4}  {who:<{width}}  {what}"
            for number, (who, what) in enumerate(self.labels, start=1)
        ]
        lines.append(
            f"      version {self.served} was served; version {self.least} was the least that "
            "counted when the read began"
        )
        return "\n".join(lines)


def explore(setting: Setting, without: Rule | None = None, limit: int = 2_000_000) -> Explored:
    """Visit every state that can be reached, up to the first stale read."""
    protocol = Protocol(setting, without)
    first = protocol.first()
    reached: dict[Frozen, tuple[Frozen, Label] | None] = {first: None}
    states = [first]
    steps = 0
    thaw, actions = World.thaw, protocol.actions
    for state in states:
        if not protocol.is_open(state):
            continue
        for label, act in actions(thaw(state)):
            steps += 1
            world = thaw(state)
            act(world)
            if world.stale is not None:
                labels = [label]
                before = reached[state]
                while before is not None:
                    labels.append(before[1])
                    before = reached[before[0]]
                found = Counterexample(setting, labels[::-1], *world.stale)
                return Explored(len(states), steps, found)
            after = world.freeze()
            if after not in reached:
                reached[after] = (state, label)
                states.append(after)
        assert len(states) < limit, f"{setting.name} has more than {limit} states"
    return Explored(len(states), steps, None)
