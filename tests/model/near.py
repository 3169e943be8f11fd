"""The near cache: copies, pending reads, reports of changes."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.base import Action, Steps, letter
from tests.model.rules import Rule
from tests.model.state import KEY, LOST, TAG, Circuit, Client, Process, Value, World


class NearSteps(Steps):
    """``NearCache``, ``NearRead`` and ``Tracker``."""

    def drop(self, process: Process, keys: int) -> None:
        """``NearCache.drop``: drop copies, and cancel the reads that are pending."""
        cancel = self.keeps(Rule.NEAR_PENDING)
        if keys & KEY:
            process.near_key = None
            if cancel:
                process.pending_key = 0
        if keys & TAG:
            process.near_tag = 0
            if cancel:
                process.pending_tag = 0

    def turn_off(self, process: Process) -> None:
        """``NearCache.turn_off``."""
        process.near = False
        process.unreported = 0
        if self.keeps(Rule.NEAR_ANEW):
            process.near_key, process.near_tag = None, 0
            process.pending_key = process.pending_tag = 0

    def look(self, world: World, number: int) -> int | None:
        """``NearRead.found``, or ``begin_read``: a version, or None after the read was begun."""
        client = world.clients[number]
        process = world.processes[client.process]
        held = process.near_key
        if process.near and type(held) is Value and held.tag == process.near_tag != 0:
            # Other processes' changes are seen when their reports arrive.
            client.least = process.near_floor
            return held.version
        client.least = process.floor
        client.at = "ask"
        if process.near:
            if not process.pending_key:
                process.pending_key = self._fresh(world, client.process)
            if not process.pending_tag:
                process.pending_tag = self._fresh(world, client.process)
            client.pending = process.pending_key, process.pending_tag
        return None

    def commit_read(self, world: World, number: int) -> None:
        """``NearCache.commit_read``, then ``cancel_read``."""
        client = world.clients[number]
        process = world.processes[client.process]
        (key, tag), (held, token) = client.pending, client.reply
        if key and process.near and type(held) is Value and token:
            if process.pending_key != key:
                if process.near_key is not None and process.near_key != held:
                    self.drop(process, KEY)
            else:
                process.pending_key = 0
                process.near_key = held
            if process.pending_tag != tag:
                if process.near_tag not in (0, token):
                    self.drop(process, TAG)
            else:
                process.pending_tag = 0
                process.near_tag = token
        self.cancel_read(process, client)

    def cancel_read(self, process: Process, client: Client) -> None:
        """``NearCache.cancel_read``."""
        key, tag = client.pending
        if process.pending_key == key:
            process.pending_key = 0
        if process.pending_tag == tag:
            process.pending_tag = 0
        client.pending, client.reply = (0, 0), (None, 0)

    def near_actions(self, world: World, number: int) -> Iterator[Action]:
        """Yield what the tracker may do."""
        process = world.processes[number]
        who = f"tracker of {letter(number)}"
        shared = world.shared
        for keys, name in ((KEY, "key"), (TAG, "tag")):
            if process.unreported & keys and not process.unreported & LOST:
                yield (who, f"the {name} has changed"), lambda w, k=keys: self._report(w, number, k)
        if process.near and not process.unreported & LOST:
            yield (who, "loses its connection"), lambda w: self._lose_reports(w, number)
        elif process.near:
            yield (who, "finds its connection ended"), lambda w: self.turn_off(w.processes[number])
        if (
            not process.near
            and process.circuit == Circuit.CLOSED
            and process.trusted == shared.server
        ):
            yield (who, "listens, near cache on"), lambda w: self._turn_on(w, number)

    def _lose_reports(self, world: World, number: int) -> None:
        world.processes[number].unreported = LOST

    def _report(self, world: World, number: int, keys: int) -> None:
        process = world.processes[number]
        process.unreported &= ~keys
        if self.keeps(Rule.NEAR_REPORT):
            self.drop(process, keys)
        self.reported(world.shared, process)

    def _turn_on(self, world: World, number: int) -> None:
        process = world.processes[number]
        process.near = True
        process.near_floor = max(process.near_floor, process.floor)

    def _fresh(self, world: World, number: int) -> int:
        process = world.processes[number]
        used = {process.pending_key, process.pending_tag}
        for client in world.clients:
            if client.process == number:
                used.update(client.pending)
        return next(each for each in range(1, 99) if each not in used)
