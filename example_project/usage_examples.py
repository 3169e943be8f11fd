"""Use every feature once: `python -m example_project.usage_examples`.

Runs on whatever the environment names (SQLite and memory without any variable, PostgreSQL and
Redis with DATABASE_URL and REDIS_URL), checks what it gets, and leaves nothing behind.
"""

# ruff: noqa: S101  (the assertions say what each call gives)

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import django
from asgiref.sync import async_to_sync

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
if __name__ == "__main__":
    django.setup()

from django.contrib.auth import get_user_model
from django.core.cache import cache as django_cache
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.utils import timezone

from agent_sessions.exceptions import SessionArchived
from agent_sessions.models import MessageRole, Session, SessionStatus
from agent_sessions.repository import SessionRepository
from cache_layer import FOREVER, cache_invalidate, cached, get_cache, get_redis_manager
from cache_layer.exceptions import UnsupportedValueError

# --- The cache ----------------------------------------------------------------------------------


async def values() -> None:
    """Write, read, count, expire and delete in a namespace."""
    books = await get_cache(namespace="books")
    assert await books.set("isbn:1", {"title": "Dune", "pages": 612}, ttl=60)
    assert await books.get("isbn:1") == {"title": "Dune", "pages": 612}
    assert await books.exists("isbn:1")
    assert await books.expire("isbn:1", ttl=10)
    assert await books.ttl("isbn:1") == 10
    assert await books.delete("isbn:1")
    assert await books.get("isbn:1") is None

    assert await books.increment("lent") == 1
    assert await books.increment("lent", amount=4) == 5

    # None is a value too: exists() and a default tell it from a missing key.
    await books.set("translator", None)
    assert await books.exists("translator")
    assert await books.get("translator", "unknown") is None
    assert await books.get("illustrator", "unknown") == "unknown"

    # Without a ttl the alias's default applies; FOREVER stores without an end.
    await books.set("founded", 1999, ttl=FOREVER)
    assert await books.ttl("founded") is FOREVER


async def batches() -> None:
    """Read and write many keys in one round trip; compute a value that is missing."""
    scores = await get_cache(namespace="scores")
    assert await scores.set_many({"ada": 3, "bob": 5}, ttl=60)
    assert await scores.get_many(["ada", "bob", "eve"]) == {"ada": 3, "bob": 5}
    assert await scores.delete_many(["ada", "eve"]) == 1
    assert await scores.get_or_set("sum", lambda: 40 + 2, ttl=60) == 42


async def namespaces() -> None:
    """Separate namespaces: none reads or clears another. Django's own API reads all of them."""
    drafts, letters = await get_cache("drafts"), await get_cache("letters")
    await drafts.set("1", "Dear")
    await letters.set("1", "Sincerely")
    await drafts.clear()
    assert await drafts.get("1") is None
    assert await letters.get("1") == "Sincerely"
    assert await django_cache.aget("letters:1") == "Sincerely"


async def results() -> None:
    """Cache what a function returns, and invalidate it when the data changes."""
    prices = {"tea": 3}
    calls: list[str] = []

    @cached(ttl=300, key_prefix="shop")
    async def get_price(article: str) -> int:
        calls.append(article)
        return prices[article]

    @cache_invalidate(key_pattern="shop:get_price:*")
    async def set_price(article: str, price: int) -> None:
        prices[article] = price

    assert [await get_price("tea"), await get_price(article="tea")] == [3, 3]
    assert calls == ["tea"]
    await set_price("tea", 4)
    assert await get_price("tea") == 4
    await get_price.invalidate("tea")
    assert await get_price.refresh("tea") == 4
    assert calls == ["tea"] * 3

    # Only the results for this article: {article} is filled from the call.
    @cache_invalidate(key_pattern="shop:get_price:{article}")
    async def touch(article: str) -> None:
        """Nothing but the invalidation."""

    await touch("milk")
    await get_price("tea")
    assert calls == ["tea"] * 3
    await touch("tea")
    await get_price("tea")
    assert calls == ["tea"] * 4


async def choices() -> None:
    """Choose what is cached: results that are None, arguments that make no difference."""
    calls: list[str] = []

    @cached(ttl=60, key_prefix="shop")
    async def find(name: str) -> str | None:
        calls.append("find")
        return None

    @cached(ttl=60, key_prefix="shop", cache_none=True)
    async def find_and_remember(name: str) -> str | None:
        calls.append("remember")
        return None

    @cached(ttl=60, key_prefix="shop", namespace="pages", include_args=False)
    async def front_page(visitor: str) -> str:
        calls.append("page")
        return "Welcome"

    for _ in range(2):
        await find("nobody")
        await find_and_remember("nobody")
    await front_page("ada")
    await front_page("bob")
    assert calls == ["find", "remember", "find", "page"]


async def what_may_be_stored() -> None:
    """Store exact values; a value that cannot be stored raises an error that says what to do."""

    @dataclass
    class Point:
        x: int
        y: int

        def to_dict(self) -> dict[str, int]:
            return {"x": self.x, "y": self.y}

    shapes = await get_cache("shapes")
    point = Point(1, 2)
    try:
        await shapes.set("a", point)
    except UnsupportedValueError as error:
        print(f"  as expected: {str(error).splitlines()[0][:100]}")
    else:
        raise AssertionError("A class of one's own is stored only when it is registered.")
    await shapes.set("a", point.to_dict())
    assert await shapes.get("a") == {"x": 1, "y": 2}
    exact = {"when": timezone.now(), "pair": (1, 2), "tags": {"red"}, 5: b"\x00"}
    await shapes.set("b", exact)
    assert await shapes.get("b") == exact


async def manager() -> None:
    """Scan keys, read batches, delete by pattern, read metrics."""
    redis = await get_redis_manager()
    assert await redis.mset({"parts:bolt": "10", "parts:nut": "20"})
    assert sorted(await redis.scan_keys("parts:*")) == ["parts:bolt", "parts:nut"]
    assert await redis.mget(["parts:bolt", "parts:nut", "parts:cog"]) == ["10", "20", None]
    assert await redis.delete_by_pattern("parts:*") == 2

    anything = await get_cache()
    await anything.set("hit", 1)
    await anything.get("hit")
    await anything.get("miss")
    metrics = redis.get_metrics()
    print(
        f"  hits {metrics['metrics']['default:hits']}, "
        f"misses {metrics['metrics']['default:misses']}, hit rate {metrics['hit_rate']:.1f} %"
    )
    assert 0 < redis.get_hit_rate() < 100
    assert 0 <= redis.get_hit_rate(namespace="books") <= 100


# --- Sessions -----------------------------------------------------------------------------------


async def conversation(user: Any) -> None:
    """Create a session, append messages, change its context, search, and count."""
    sessions = SessionRepository().for_user(user)
    session = await sessions.create(
        Session(
            agent_id="travel_agent",
            title="A week in Lisbon",
            status=SessionStatus.ACTIVE,
            metadata={"channel": "web"},
        )
    )
    await sessions.add_message_to_session(
        session_id=session.id,
        message={"role": "user", "content": "Where to stay?", "metadata": {"source": "web"}},
    )
    await sessions.add_messages(
        session.id,
        [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "name": "hotels"}]},
            {"role": "tool", "tool_call_id": "1", "content": "Alfama, Baixa"},
            {"role": "assistant", "content": [{"type": "text", "text": "In Alfama."}]},
        ],
    )
    # A client that lost the answer sends the message again with the same key: nothing is added.
    once = {"role": "user", "content": "Thanks!", "idempotency_key": "request-7"}
    first = await sessions.add_message_to_session(session.id, once)
    again = await sessions.add_message_to_session(session.id, once)
    assert first.pk == again.pk

    session = await sessions.get_session_with_messages(session.id)
    assert len(session.messages) == session.message_count == 5
    assert [message.sequence for message in session.messages] == [1, 2, 3, 4, 5]
    assert session.messages[0].role == MessageRole.USER
    assert session.messages[1].as_dict()["tool_calls"][0]["name"] == "hotels"
    last = await sessions.get_messages(session.id, limit=2)
    assert [message.sequence for message in last] == [4, 5]
    new = await sessions.get_messages(session.id, after=4)
    assert [message.text for message in new] == ["Thanks!"]

    await sessions.update_session_context(session.id, {"city": "Lisbon", "days": 7})
    session = await sessions.update_session_context(session.id, {"days": 8})
    assert session.context == {"city": "Lisbon", "days": 8}

    active = await sessions.get_user_sessions(active_only=True)
    assert [one.title for one in active] == ["A week in Lisbon"]
    for term in ("lisbon", "alfama"):
        assert [one.pk for one in await sessions.search_sessions(term)] == [session.pk]

    stats = await sessions.get_session_stats()
    print(
        f"  {stats.total_sessions} sessions, {stats.active_sessions} active, "
        f"{stats.total_messages} messages, {stats.avg_messages_per_session:.1f} a session"
    )
    assert (stats.total_sessions, stats.total_messages) == (1, 5)


async def many_sessions(user: Any) -> None:
    """Read pages, set the status of many sessions, archive, delete."""
    sessions = SessionRepository().for_user(user)
    made = [
        await sessions.create(Session(agent_id="quiz", title=f"Round {number}"))
        for number in range(1, 8)
    ]
    page = await sessions.get_paginated_user_sessions(page=1, page_size=3)
    assert (page.page, page.total_pages, page.total_items) == (1, 3, 8)
    assert (page.has_next, page.has_previous) == (True, False)
    assert [session.title for session in page.items] == ["Round 7", "Round 6", "Round 5"]

    ids = [session.id for session in made]
    assert await sessions.bulk_update_session_status(ids[:3], SessionStatus.PAUSED) == 3
    assert await sessions.bulk_update_session_status(ids[3:4], SessionStatus.ARCHIVED) == 1
    try:
        await sessions.add_message_to_session(ids[3], {"role": "user", "content": "Too late"})
    except SessionArchived as error:
        print(f"  as expected: {error}")
    else:
        raise AssertionError("The archive is read-only.")
    try:
        await sessions.add_message_to_session(ids[0], {"role": "robot", "content": "Beep"})
    except ValidationError as error:
        print(f"  as expected: {error.messages[0]}")
    else:
        raise AssertionError("Roles are known.")
    await sessions.delete(ids[0])
    try:
        await sessions.get(ids[0])
    except Session.DoesNotExist:
        pass
    else:
        raise AssertionError("Deleted is deleted.")


async def expiry(user: Any) -> None:
    """Complete expired sessions; a message opens one again."""
    sessions = SessionRepository().for_user(user)
    past = timezone.now() - timedelta(hours=1)
    session = await sessions.create(Session(agent_id="quiz", title="Forgotten", expires_at=past))
    assert session.pk not in [one.pk for one in await sessions.get_user_sessions()]
    # For all users, as agent_sessions.tasks.cleanup_expired_sessions does every few minutes.
    assert await SessionRepository().cleanup_expired_sessions() >= 1
    assert (await sessions.get(session.pk)).status == SessionStatus.COMPLETED
    await sessions.add_message_to_session(session.pk, {"role": "user", "content": "I am back"})
    session = await sessions.get(session.pk)
    assert session.is_active
    assert session.expires_at is not None
    assert session.expires_at > timezone.now()


async def the_message_limit(user: Any) -> None:
    """Append beyond SESSION_MAX_MESSAGES: it logs a warning and works."""
    sessions = SessionRepository().for_user(user)
    session = await sessions.create(Session(agent_id="quiz", title="Long"))
    await sessions.add_messages(session.pk, [{"role": "user", "content": "again"}] * 101)
    assert (await sessions.get(session.pk)).message_count == 101


async def with_cached_reads(user: Any) -> None:
    """Cache a read of a session, and invalidate it with each write."""
    sessions = SessionRepository().for_user(user)
    session = await sessions.create(Session(agent_id="quiz", title="Both"))

    @cached(ttl=60, key_prefix="counts", namespace="sessions")
    async def count(session_id: Any) -> int:
        return (await sessions.get(session_id)).message_count

    @cache_invalidate(key_pattern="counts:*", namespace="sessions")
    async def say(session_id: Any, text: str) -> None:
        await sessions.add_message_to_session(session_id, {"role": "user", "content": text})

    assert await count(session.pk) == 0
    await say(session.pk, "Hello")
    assert await count(session.pk) == 1


def from_synchronous_code(user: Any) -> None:
    """Use the same operations, and Django's querysets, without await."""
    sessions = SessionRepository().for_user(user).sync
    titles = [one.title for one in sessions.get_user_sessions(limit=3)]
    assert len(titles) == 3
    assert Session.objects.for_user(user).active().search("lisbon").count() == 1
    django_cache.set("greeting", "hello", timeout=60)
    assert django_cache.get("greeting") == "hello"
    assert sessions.delete_user_data().sessions > 0


CACHE_EXAMPLES: list[Callable[[], Awaitable[None]]] = [
    values,
    batches,
    namespaces,
    results,
    choices,
    what_may_be_stored,
    manager,
]
SESSION_EXAMPLES: list[Callable[[Any], Awaitable[None]]] = [
    conversation,
    many_sessions,
    expiry,
    the_message_limit,
    with_cached_reads,
]


async def run(user: Any) -> None:
    """Run all awaited examples."""
    for namespace in ("books", "scores", "letters", "shapes", "pages", "sessions"):
        await (await get_cache(namespace)).clear()
    await (await get_redis_manager()).delete_by_pattern("shop:*")
    for example in CACHE_EXAMPLES:
        _announce(example)
        await example()
    for session_example in SESSION_EXAMPLES:
        _announce(session_example)
        await session_example(user)


def main() -> None:
    """Run all examples with a user made for them."""
    call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
    users = get_user_model()._default_manager
    users.filter(username="usage-examples").delete()
    user = users.create(username="usage-examples")
    try:
        # Unlike asyncio.run() this keeps the ORM in this thread, on one database connection.
        async_to_sync(run)(user)
        _announce(from_synchronous_code)
        from_synchronous_code(user)
    finally:
        SessionRepository().sync.delete_user_data(user.pk)
        user.delete()
    print("All examples ran.")


def _announce(example: Callable[..., Any]) -> None:
    print(f"{example.__name__}: {(example.__doc__ or '').strip()}")


if __name__ == "__main__":
    main()
