"""How a process finds back to Redis, and what may go wrong meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.base import Action, letter
from tests.model.near import NearSteps
from tests.model.rules import Rule
from tests.model.state import KEY, LOST, TAG, Circuit, Value, World


class RecoverySteps(NearSteps):
    """``Recovery`` and its operations, and the faults."""

    def recovery_actions(self, world: World, number: int) -> Iterator[Action]:
        """Yield the recovery's next step."""
        process = world.processes[number]
        step = process.recovery
        if not step:
            return
        who = f"recovery of {letter(number)}"
        if step == "close":
            yield (who, "closes the circuit, or goes on"), lambda w: self._close(w, number)
        else:
            done = {"probe": self._probe, "replay": self._replay_journal}.get(step, self._purge)
            yield (who, step), lambda w: done(w, number)
            if step != "probe" and (process.outage or world.shared.server != process.trusted):
                yield (who, f"{step} is lost"), lambda w: self._lost(w, number)

    def _lost(self, world: World, number: int) -> None:
        """A command of the recovery failed: it begins anew."""
        process = world.processes[number]
        self.lose(process)
        if process.recovery == "replay":
            self.give_back(process, process.taken)
            process.taken = 0
        process.purging = 0
        process.recovery = "probe"
        if process.circuit == Circuit.DRAINING:
            process.circuit = Circuit.OPEN

    def _probe(self, world: World, number: int) -> None:
        """``_is_trusted``, and of ``_is_prepared`` ``EndConnections``."""
        shared, process = world.shared, world.processes[number]
        process.found = shared.server
        if process.outage == 1:
            process.outage = 0
        if not process.trusted:
            self.connects(shared, process)
        ends = process.found == process.trusted and self.keeps(Rule.END_CONNECTIONS)
        if ends and shared.late is not None and shared.late[0] == number:
            shared.late = None
        process.purging = process.found
        process.recovery = "look at the mark"
        if not shared.restarts:
            # No other server can come in between.
            self._purge(world, number)

    def _purge(self, world: World, number: int) -> None:
        """``PurgeKeyspaces``: every command goes to whatever server answers by now."""
        shared, process = world.shared, world.processes[number]
        step = process.recovery
        process.found = shared.server
        if step == "look at the mark":
            known, trusted = shared.mark, process.purging == process.trusted
            if known == process.purging or (not known and trusted):
                shared.mark = process.purging
                self._purged(world, number)
            elif not self.keeps(Rule.PURGE):
                process.recovery = "set the mark"
            else:
                process.recovery = "drop the keys"
                if not self.keeps(Rule.PURGE_FIRST):
                    shared.mark = process.purging
        elif step == "set the mark":
            shared.mark = process.purging
            self._purged(world, number)
        else:
            self.delete_in_redis(world, KEY | TAG)
            process.recovery = "set the mark"

    def _purged(self, world: World, number: int) -> None:
        """The server may be used: ``Breaker.drain``, and the journal is taken."""
        process = world.processes[number]
        process.trusted = process.purging if self.keeps(Rule.PURGED) else process.found
        process.purging = process.found = 0
        process.circuit = Circuit.DRAINING
        if not self.keeps(Rule.REPLAY):
            self._reopen(world, number)
            return
        process.taken, process.journal = process.journal, 0
        process.recovery = "replay" if process.taken else "close"

    def _replay_journal(self, world: World, number: int) -> None:
        """``Replay``, and what follows without another look at Redis."""
        process = world.processes[number]
        self.delete_in_redis(world, process.taken)
        process.taken = 0
        process.recovery = "close"
        self._close(world, number)

    def _close(self, world: World, number: int) -> None:
        process = world.processes[number]
        if process.circuit != Circuit.DRAINING:
            process.recovery = "probe"
        elif process.journal and self.keeps(Rule.OWN_REPLAY):
            process.taken, process.journal = process.journal, 0
            process.recovery = "replay"
        else:
            self._reopen(world, number)

    def _reopen(self, world: World, number: int) -> None:
        """``Breaker.close``: everybody asks Redis again."""
        process = world.processes[number]
        if self.keeps(Rule.CLEAR):
            process.key, process.tag = None, 0
        process.circuit = Circuit.CLOSED
        process.recovery = ""
        self.reached(world, process.floor)

    def fault_actions(self, world: World) -> Iterator[Action]:
        """Yield what may go wrong, or be right again."""
        shared = world.shared
        if shared.saves and (shared.key, shared.tag, shared.mark) != shared.snapshot:
            yield ("Redis", "saves a snapshot"), self._save
        if shared.restarts:
            yield ("Redis", "restarts from its snapshot"), self._restart
        if shared.evictions:
            if shared.key is not None:
                yield ("Redis", "evicts the key"), lambda w: self._evict(w, KEY)
            if shared.tag:
                yield ("Redis", "evicts the tag"), lambda w: self._evict(w, TAG)
            if shared.mark and self.setting.evicts_mark:
                yield ("Redis", "evicts the mark"), lambda w: self._evict(w, 0)
        if shared.late is not None:
            process, what, _lease, _version = shared.late
            yield ("network", f"delivers {what} of {letter(process)}"), self._deliver

    def _save(self, world: World) -> None:
        shared = world.shared
        shared.saves -= 1
        shared.snapshot = shared.key, shared.tag, shared.mark

    def _restart(self, world: World) -> None:
        shared = world.shared
        shared.restarts -= 1
        shared.server += 1
        shared.key, shared.tag, shared.mark = shared.snapshot
        shared.late = None
        if not shared.restarts:
            shared.snapshot = None, 0, 0
        for process in world.processes:
            if process.near:
                process.unreported = LOST

    def _evict(self, world: World, keys: int) -> None:
        world.shared.evictions -= 1
        if not keys:
            world.shared.mark = 0
        self.delete_in_redis(world, keys)

    def _deliver(self, world: World) -> None:
        shared = world.shared
        assert shared.late is not None
        _process, what, lease, version = shared.late
        shared.late = None
        if what == "set":
            shared.key = Value(version, 0)
            self.changed(world, KEY)
        elif lease is not None and self.fill(shared, lease, version):
            self.changed(world, KEY)
