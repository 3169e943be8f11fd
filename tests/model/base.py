"""What every part of the protocol needs: the setting, the rules, and when the circuit opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.model.rules import Rule
from tests.model.state import LOST, Circuit, Process, Shared, World

#: Who or what does it, its name, and how; for the reader of a counterexample.
Label = tuple[str, str]
#: What may happen next, and what it does to the state.
Action = tuple[Label, Callable[[World], None]]


class Setting(NamedTuple):
    """What three clients do, and how often what may go wrong."""

    name: str
    #: For each client: its process, and what it calls one after the other.
    programs: Sequence[tuple[int, Sequence[str]]]
    tagged: bool = True
    near: bool = False
    #: Whether process B makes its first connection with its first command.
    begins: bool = False
    #: Sets of processes that the outage may reach, as bits.
    outage: int = 3
    #: How often Redis restarts from its snapshot, and how often it saves one after the first.
    restarts: int = 1
    saves: int = 0
    evictions: int = 1
    #: Whether the clean mark may be evicted too.
    evicts_mark: bool = False
    cancellations: int = 1


class Steps:
    """Base of the parts.

    Args:
        setting: who does what.
        without: a rule that is left out.
    """

    def __init__(self, setting: Setting, without: Rule | None = None) -> None:
        self.setting = setting
        self.without = without
        self.programs = [items for _process, items in setting.programs]

    def keeps(self, rule: Rule) -> bool:
        return rule is not self.without

    def connects(self, shared: Shared, process: Process) -> bool:
        """``ServerIdentity``: whether a connection is made, or has been, to a trusted server."""
        if not process.trusted:
            # The first connection: the mark names the server that holds nothing stale.
            known = shared.mark if self.keeps(Rule.MARK) else 0
            process.trusted = known or shared.server
            shared.mark = shared.mark or process.trusted
        return process.trusted == shared.server or not self.keeps(Rule.SERVER)

    def open(self, process: Process) -> None:
        """``Store._opened``: memory answers, and the recovery begins."""
        if process.circuit == Circuit.CLOSED:
            process.circuit = Circuit.OPEN
            process.recovery = "probe"
            self.turn_off(process)

    def lose(self, process: Process) -> None:
        """A command is lost: the outage has begun."""
        if process.outage:
            process.outage = 1

    def give_back(self, process: Process, entries: int) -> None:
        """``Circuit.give_back``: remember again what was not replayed."""
        if self.keeps(Rule.GIVE_BACK):
            process.journal |= entries
        if process.circuit == Circuit.CLOSED:
            self.open(process)
        else:
            process.circuit = Circuit.OPEN

    def invalidated(self, world: World, process: Process, version: int, *, reached: bool) -> None:
        """An invalidation has ended: for its process, or for all that ask Redis."""
        process.floor = max(process.floor, version)
        process.near_floor = max(process.near_floor, version)
        if reached:
            self.reached(world, version)

    def reached(self, world: World, version: int) -> None:
        """An invalidation that has ended is in Redis: whoever asks Redis must see it."""
        shared = world.shared
        shared.reached = max(shared.reached, version)
        for process in world.processes:
            if process.circuit == Circuit.CLOSED:
                process.floor = max(process.floor, shared.reached)
                self.reported(shared, process)

    def reported(self, shared: Shared, process: Process) -> None:
        """Once every report has arrived, the copies must be as new as Redis."""
        if process.near and not process.unreported:
            process.near_floor = max(process.near_floor, shared.reached)

    def changed(self, world: World, keys: int) -> None:
        """Redis reports changed keys to whoever listens."""
        for process in world.processes:
            if process.near and not process.unreported & LOST:
                process.unreported |= keys

    def forget(self, process: Process, keys: int) -> None:
        """``Store._forget``: a write drops the copies of its own process."""
        if process.near and self.keeps(Rule.NEAR_OWN):
            self.drop(process, keys)

    def drop(self, process: Process, keys: int) -> None:
        """See ``NearSteps``."""

    def turn_off(self, process: Process) -> None:
        """See ``NearSteps``."""

    def delete_in_redis(self, world: World, keys: int) -> None:
        shared = world.shared
        if keys & 1:
            shared.key = None
        if keys & 2:
            shared.tag = 0
        self.changed(world, keys)


def letter(process: int) -> str:
    return "AB"[process]
