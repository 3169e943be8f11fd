"""The steps of the protocol, each named like what it stands for in ``cache_layer``.

What cannot make anything older is left out: time, values of other keys, a second keyspace. A call
reads the database as soon as it holds its lease, because a later look would only find something
newer. For the same reason a change is written together with the first attempt to invalidate it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.base import Action, letter
from tests.model.history import is_stale
from tests.model.recovery import RecoverySteps
from tests.model.rules import Rule
from tests.model.state import (
    KEY,
    TAG,
    Circuit,
    Client,
    Frozen,
    Lease,
    Process,
    Shared,
    Value,
    World,
)

#: The commands of which a call is made, and those of a change.
COMMANDS = frozenset({"read", "claim", "fill", "release", "delete", "delete the tag", "set"})
CHANGES = frozenset({"delete", "delete the tag", "set"})
#: Where a caller stands who leads a flight.
LEADING = frozenset({"fill", "release"})
#: What a program's items begin with; a ``plain`` deletion is not repeated when it is cancelled.
FIRST = {
    "call": "read",
    "invalidate": "delete",
    "invalidate the tag": "delete the tag",
    "plain delete": "delete",
    "set": "set",
}


class Protocol(RecoverySteps):
    """Everything that may happen."""

    def first(self) -> Frozen:
        """An old value is in Redis, and everybody is connected."""
        setting = self.setting
        tag = 1 if setting.tagged else 0
        value = Value(0, tag)
        shared = Shared(
            key=value,
            tag=tag,
            snapshot=(value, tag, 1),
            restarts=setting.restarts,
            saves=setting.saves,
            evictions=setting.evictions,
            cancellations=setting.cancellations,
        )
        processes = [Process(near=setting.near), Process(near=setting.near)]
        for number, process in enumerate(processes):
            process.outage = 2 * (setting.outage >> number & 1)
        if setting.begins:
            processes[1].trusted = 0
        clients = [Client(process) for process, _items in setting.programs]
        world = World(shared, processes, clients)
        for number in range(len(clients)):
            self._next(world, number)
        return world.freeze()

    def is_open(self, state: Frozen) -> bool:
        """Whether anything stale may still be served: there are calls to come, and something old.

        Args:
            state: the state.
        """
        clients = state[3:]
        if not any(
            "call" in items[client[1] :]
            for items, client in zip(self.programs, clients, strict=True)
        ):
            return False
        if any(
            not set(items[client[1] :]) <= {"call"}
            for items, client in zip(self.programs, clients, strict=True)
        ):
            return True
        world = World.thaw(state)
        database = world.shared.database
        late = world.shared.late
        contents = [world.shared.key, world.shared.snapshot[0]]
        contents += [
            each for process in world.processes for each in (process.key, process.near_key)
        ]
        contents += [client.reply[0] for client in world.clients]
        return (
            any(type(each) is Value and each.version < database for each in contents)
            or any(c.at in LEADING and c.version < database for c in world.clients)
            or (late is not None and late[3] < database)
        )

    def actions(self, world: World) -> Iterator[Action]:
        """Yield what may happen next."""
        for number in range(len(world.clients)):
            yield from self._client_actions(world, number)
        for number in range(len(world.processes)):
            yield from self.recovery_actions(world, number)
            if self.setting.near:
                yield from self.near_actions(world, number)
        yield from self.fault_actions(world)

    def _client_actions(self, world: World, number: int) -> Iterator[Action]:
        client = world.clients[number]
        at = client.at
        if not at and not client.replay:
            return
        process = world.processes[client.process]
        shared = world.shared
        who = f"client {number + 1} in {letter(client.process)}"
        closed = process.circuit == Circuit.CLOSED
        if client.replay:
            connects = self.connects(shared, process)
            if connects:
                yield (who, "replays its own"), lambda w: self._replay(w, number)
            if process.outage or not connects:
                yield (who, "fails to replay its own"), lambda w: self._not_replayed(w, number)
            if shared.cancellations:
                yield (
                    (who, "is cancelled in its replay"),
                    lambda w: self._not_replayed(w, number, cancelled=True),
                )
        elif at in COMMANDS:
            if not closed:
                yield (who, f"{at}, in memory"), lambda w: self._in_memory(w, number)
            else:
                connects = self.connects(shared, process)
                if connects:
                    yield (who, f"{at}, in Redis"), lambda w: self._in_redis(w, number)
                if process.outage or not connects:
                    yield (who, f"{at} is lost"), lambda w: self._fail(w, number)
            if process.outage == 1 or (closed and process.outage):
                # It may have been sent before the circuit opened.
                if at in ("fill", "set") and shared.late is None:
                    yield (who, f"{at} is held back"), lambda w: self._fail(w, number, late=True)
                elif at == "claim":
                    yield (who, "claim, its reply is lost"), lambda w: self._lose_claim(w, number)
            if shared.cancellations and not client.cancelled:
                yield from self._cancellations(world, number, who)
        elif at == "look":
            yield (who, "looks for a copy"), lambda w: self._look(w, number)
        elif at == "ask":
            connects = self.connects(shared, process)
            if closed and connects:
                yield (who, "asks Redis, for a copy too"), lambda w: self._ask(w, number)
            if process.outage or not (closed and connects):
                yield (who, "asks in vain"), lambda w: self._ask_in_vain(w, number)
        elif at == "reply":
            yield (who, "gets the reply"), lambda w: self._reply(w, number)
        # Who waits for a flight is woken.

    # Where a command is carried out: ``Store.run``

    def _in_redis(self, world: World, number: int) -> None:
        client = world.clients[number]
        process = world.processes[client.process]
        shared = world.shared
        self.connects(shared, process)
        at, key, tag = client.at, shared.key, shared.tag
        self._carry_out(world, number, shared)
        keys = KEY * (shared.key != key) | TAG * (shared.tag != tag)
        if keys:
            self.changed(world, keys)
        if at != "read":
            self.forget(process, TAG if at == "delete the tag" else KEY)
        if client.ending:
            self._end(world, number, reached=True)

    def _in_memory(self, world: World, number: int) -> None:
        client = world.clients[number]
        process = world.processes[client.process]
        if client.at in CHANGES and self.keeps(Rule.REMEMBER):
            entry = TAG if client.at == "delete the tag" else KEY
            if process.circuit == Circuit.DRAINING and self.keeps(Rule.OWN_REPLAY):
                # What others gave back is left to the recovery.
                client.replay = entry
            else:
                process.journal |= entry
        self._carry_out(world, number, process)
        if client.ending and not client.replay:
            self._end(world, number, reached=False)

    def _fail(self, world: World, number: int, *, late: bool = False) -> None:
        """``Store._failed``: the outcome is unknown; memory answers next."""
        client = world.clients[number]
        process = world.processes[client.process]
        at = client.at
        if client.at in CHANGES:
            self._write_database(world, client)
        if late:
            world.shared.late = client.process, at, client.lease, client.version
        if self.keeps(Rule.REMEMBER) and (at in CHANGES or at == "claim"):
            process.journal |= TAG if at == "delete the tag" else KEY
        if self.connects(world.shared, process):
            self.lose(process)
        self.open(process)

    def _lose_claim(self, world: World, number: int) -> None:
        if self.connects(world.shared, world.processes[world.clients[number].process]):
            self.claim(world, world.shared, world.fresh_token())
            self.changed(world, KEY | TAG)
        self._fail(world, number)

    def _replay(self, world: World, number: int) -> None:
        client = world.clients[number]
        self.delete_in_redis(world, client.replay)
        client.replay = 0
        if client.ending:
            self._end(world, number, reached=True)

    def _not_replayed(self, world: World, number: int, *, cancelled: bool = False) -> None:
        """``Store._replaying``."""
        client = world.clients[number]
        process = world.processes[client.process]
        self.give_back(process, client.replay)
        client.replay = 0
        if not cancelled and self.connects(world.shared, process):
            self.lose(process)
        if cancelled:
            world.shared.cancellations -= 1
            if client.ending and self._is_shielded(world, number) and self.keeps(Rule.SHIELD):
                client.ending = False
            elif client.at == "fill":
                self._tidy_up(client)
        if client.ending:
            self._end(world, number, reached=False)

    # What is carried out: ``steps`` and ``in_memory`` of the operations

    def _carry_out(self, world: World, number: int, store: Shared | Process) -> None:
        client = world.clients[number]
        at = client.at
        if at == "read":
            client.least = world.processes[client.process].floor
            world.result = version = self.read(store)
            if version is None:
                client.at = "claim"
            else:
                self._serve(world, number, version)
        elif at == "claim":
            self._claimed(world, number, store)
        elif at == "fill":
            assert client.lease is not None
            world.result = self.fill(store, client.lease, client.version)
            if world.result:
                self._finish(world, number, None)
            elif self._is_held(world, client.lease.token):
                client.at = "release"
            else:
                # There is nothing to give back.
                self._finish(world, number, client.version)
        elif at == "release":
            assert client.lease is not None
            if type(store.key) is Lease and store.key.token == client.lease.token:
                store.key = None
            self._finish(world, number, None if client.cancelled else client.version)
        else:
            self._write_database(world, client)
            if at == "delete the tag":
                store.tag = 0
            else:
                store.key = Value(client.version, 0) if at == "set" else None
            client.ending = True

    def read(self, store: Shared | Process) -> int | None:
        """``ReadResult``: the value, if its tag's token is still the current one."""
        held = store.key
        if type(held) is Value and (held.tag == store.tag or not self.keeps(Rule.TAGS)):
            return held.version
        return None

    def claim(self, world: World, store: Shared | Process, token: int) -> Value | Lease:
        """``Claim``: the value, the lease that is there, or a new one."""
        if self.setting.tagged and not store.tag:
            store.tag = world.fresh_token(token) if self.keeps(Rule.RANDOM_TAGS) else 1
        held = store.key
        if type(held) is Value and self.read(store) is not None:
            return held
        if type(held) is Lease and (held.tag == store.tag or not self.keeps(Rule.LEASE_TAGS)):
            return held
        store.key = lease = Lease(token, store.tag)
        return lease

    def fill(self, store: Shared | Process, lease: Lease, version: int) -> bool:
        """``Fill``: store the value if the lease is there and no tag has changed."""
        if self.keeps(Rule.LEASE) and store.key != lease:
            return False
        if store.tag != lease.tag and self.keeps(Rule.FILL_TAGS):
            return False
        store.key = Value(version, store.tag)
        return True

    def _is_held(self, world: World, token: int) -> bool:
        """Whether a lease is anywhere."""
        stores = (world.shared, *world.processes)
        return any(type(store.key) is Lease and store.key.token == token for store in stores)

    def _write_database(self, world: World, client: Client) -> None:
        if not client.version:
            world.shared.database += 1
            client.version = world.shared.database

    # A cached call: ``functions.compute.Miss``

    def _claimed(self, world: World, number: int, store: Shared | Process) -> None:
        client = world.clients[number]
        token = world.fresh_token()
        found = self.claim(world, store, token)
        if type(found) is Value:
            world.result = found.version
            self._serve(world, number, found.version)
            return
        assert type(found) is Lease
        client.lease = found
        for other, each in enumerate(world.clients):
            if other == number or each.process != client.process or each.at not in LEADING:
                continue
            if each.lease == found or not self.keeps(Rule.FLIGHTS):
                client.at = "wait"
                return
        client.at, client.least, client.version = "fill", 0, world.shared.database

    def _finish(self, world: World, number: int, outcome: int | None) -> None:
        """``singleflight.finish``: who waited gets what was not stored, or looks again."""
        leader = world.clients[number]
        waiting = [
            other
            for other, each in enumerate(world.clients)
            if each.at == "wait"
            and each.process == leader.process
            and (each.lease == leader.lease or not self.keeps(Rule.FLIGHTS))
        ]
        self._done(world, number)
        for other in waiting:
            if outcome is None:
                world.clients[other].at, world.clients[other].lease = "claim", None
            else:
                self._serve(world, other, outcome)

    def _serve(self, world: World, number: int, version: int) -> None:
        least = world.clients[number].least
        if is_stale(version, least):
            world.stale = version, least
        self._done(world, number)

    # With the near cache

    def _look(self, world: World, number: int) -> None:
        version = self.look(world, number)
        if version is not None:
            self._serve(world, number, version)

    def _ask(self, world: World, number: int) -> None:
        client = world.clients[number]
        shared = world.shared
        self.connects(shared, world.processes[client.process])
        client.reply = shared.key, shared.tag
        client.at = "reply"

    def _ask_in_vain(self, world: World, number: int) -> None:
        client = world.clients[number]
        process = world.processes[client.process]
        self.cancel_read(process, client)
        client.at = "read"
        if process.circuit == Circuit.CLOSED:
            if self.connects(world.shared, process):
                self.lose(process)
            self.open(process)

    def _reply(self, world: World, number: int) -> None:
        client = world.clients[number]
        held, token = client.reply
        self.commit_read(world, number)
        if type(held) is Value and (held.tag == token or not self.keeps(Rule.TAGS)):
            self._serve(world, number, held.version)
        else:
            client.at = "claim"

    # The end of a call

    def _end(self, world: World, number: int, *, reached: bool) -> None:
        """A change and its invalidation have ended."""
        client = world.clients[number]
        process = world.processes[client.process]
        if process.near and self.keeps(Rule.NEAR_OWN):
            self.drop(process, TAG if client.at == "delete the tag" else KEY)
        version = client.version
        self._done(world, number)
        self.invalidated(world, process, version, reached=reached)

    def _done(self, world: World, number: int) -> None:
        world.clients[number].done += 1
        self._next(world, number)

    def _next(self, world: World, number: int) -> None:
        """Go on to the next item of the program; what was taken is replayed before."""
        old = world.clients[number]
        client = Client(old.process, old.done, replay=old.replay)
        items = self.programs[number]
        if client.done < len(items):
            first = FIRST[items[client.done]]
            client.at = "look" if first == "read" and self.setting.near else first
        world.clients[number] = client

    # Cancelled while it waits for the reply, or while it computes

    def _cancellations(self, world: World, number: int, who: str) -> Iterator[Action]:
        """Who is cancelled elsewhere changes nothing any more, as if it were never scheduled."""
        client = world.clients[number]
        at = client.at
        process = world.processes[client.process]
        if at in CHANGES and self._is_shielded(world, number):
            yield (who, f"is cancelled before {at}"), lambda w: self._cancel_change(w, number)
        elif at == "fill":
            yield (who, "is cancelled before fill"), lambda w: self._cancel_call(w, number)
        elif at == "claim" and process.circuit == Circuit.CLOSED:
            yield (who, "is cancelled after claim"), lambda w: self._cancel_claimed(w, number)

    def _cancel_change(self, world: World, number: int) -> None:
        """``aafter_interruption``: the row is written, so what it made stale is invalidated."""
        client = world.clients[number]
        world.shared.cancellations -= 1
        self._write_database(world, client)
        if not self.keeps(Rule.SHIELD):
            self._end(world, number, reached=True)

    def _cancel_call(self, world: World, number: int) -> None:
        world.shared.cancellations -= 1
        self._tidy_up(world.clients[number])

    def _tidy_up(self, client: Client) -> None:
        client.at, client.cancelled, client.version = "release", True, 0

    def _cancel_claimed(self, world: World, number: int) -> None:
        client = world.clients[number]
        process = world.processes[client.process]
        if self.connects(world.shared, process):
            world.shared.cancellations -= 1
            token = world.fresh_token()
            found = self.claim(world, world.shared, token)
            self.changed(world, KEY | TAG)
            if type(found) is Lease and found.token == token:
                client.lease, client.least = found, 0
                self._tidy_up(client)
            else:
                self._done(world, number)

    def _is_shielded(self, world: World, number: int) -> bool:
        """Whether it is a call under ``@cache_invalidate``."""
        return self.programs[number][world.clients[number].done].startswith("invalidate")
