"""The stores, each as its own documentation says it is used.

A peer has those of the operations that its store has; the others raise NotImplementedError.
Where ``awaited``, every operation is a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.measure import Awaited, Call, Failed
from benchmarks.sessions.database import Dsn

WORDS = (
    *("loop", "agent", "cache", "django", "python", "error"),
    *("answer", "retry", "index", "message", "token", "window"),
)


def text(number: int) -> str:
    """A message of some words, another for another number."""
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5, 7, 11)) + f" {number}"


class Peer:
    """One store in one database. A conversation is named by a string, and opened before use."""

    name: str
    awaited = False

    def __init__(self, dsn: Dsn) -> None:
        """Connect."""

    def set_up(self) -> None:
        """Create the tables, and whatever else is needed once."""

    def converse(self, length: int) -> str:
        """Make a conversation of so many messages, in bulk; return its name."""
        raise NotImplementedError

    def open(self, name: str) -> Any:
        """Return the store's own object for a conversation."""
        return name

    def append(self, conversation: Any, content: str) -> Any:
        raise NotImplementedError

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        raise NotImplementedError

    def last(self, conversation: Any, count: int) -> Any:
        """The last messages, in order."""
        raise NotImplementedError

    def read(self, conversation: Any) -> Any:
        """The texts of all messages, in the store's order."""
        raise NotImplementedError

    def populate(self, user: str, count: int) -> None:
        """Create so many sessions of a user, in bulk, unless the loaded data has them."""
        raise NotImplementedError

    def newest(self, user: str, count: int) -> Any:
        """A user's sessions with the latest activity."""
        raise NotImplementedError

    def page(self, user: str, number: int, size: int) -> Any:
        raise NotImplementedError

    def stats(self, user: str) -> Any:
        """How many sessions and messages a user has."""
        raise NotImplementedError

    def call(self, function: Callable[..., Any], *args: Any) -> Call:
        """A contestant for a race."""
        if self.awaited:
            return Awaited(lambda: function(*args))
        return lambda: function(*args)

    def run(self, answer: Any) -> Any:
        """The answer of an operation, awaited if it must be."""
        return asyncio.get_event_loop().run_until_complete(answer) if self.awaited else answer

    def has(self, operation: str) -> bool:
        return getattr(type(self), operation) is not getattr(Peer, operation)

    async def aclose(self) -> None:
        """Close what belongs to the event loop."""


def classes() -> dict[str, Callable[[Dsn], Peer]]:
    from benchmarks.sessions.peers import adk, agno, langchain, openai, orm, ours, raw

    return {
        made.name: made
        for made in (
            raw.Insert,
            raw.Cte,
            ours.Sync,
            ours.Prepared,
            ours.AwaitedFace,
            orm.Pair,
            langchain.History,
            openai.SQLAlchemy,
            agno.Agno,
            adk.Adk,
        )
    }


def connect(
    names: Iterable[str] | None, dsn: Dsn, *, set_up: bool = False
) -> tuple[dict[str, Peer], dict[str, Failed]]:
    """Return the peers that work here, and why the others do not."""
    peers: dict[str, Peer] = {}
    failed: dict[str, Failed] = {}
    known = classes()
    for name in names or known:
        try:
            peer = known[name](dsn)
            if set_up:
                peer.set_up()
        except Exception as error:
            failed[name] = Failed.by(error)
        else:
            peers[name] = peer
    return peers, failed
