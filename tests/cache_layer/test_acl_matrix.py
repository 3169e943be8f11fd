"""Every kind of limited user of Redis: the contract of the backend, outages, and the check."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.test import override_settings

from cache_layer import cached, invalidate_tags
from cache_layer.backends import FEATURES, ResilientCache
from cache_layer.checks import check_servers
from cache_layer.exceptions import CommandRefusedError
from tests.cache_layer.acl import RULES, User, admin, categories
from tests.cache_layer.caches import Awaited, Stores, close, state, wait_for
from tests.cache_layer.test_backend import Asynchronous, Contract, LeaseContract, Synchronous
from tests.services import RedisServer, missing

pytestmark = pytest.mark.slow

#: Features that a test of the contract needs, by its name or the end of its id. Without one of
#: them it raises, and says what to do.
NEEDS: dict[str, set[str]] = {
    "test_timeouts_decide_how_long_a_value_lives": {"PTTL"},
    "test_touch_changes_the_timeout_only": {"PTTL"},
    "test_incr_beyond_64_bits_and_back": {"EVAL", "PTTL"},
    "test_incr_refuses_what_is_no_integer": {"EVAL"},
    "test_incr_of_a_missing_key": {"EVAL"},
    "test_incr_version_moves_value_and_expiry": {"RENAME", "PTTL"},
    "test_keys_hold_any_text": {"SCAN"},
    "test_patterns_find_keys_as_redis_reads_them": {"SCAN"},
    "test_deleting_thousands_by_pattern": {"SCAN"},
    "test_clear_takes_all_versions_and_nobody_elses_keys": {"SCAN"},
    "test_a_lease_is_a_missing_key_to_everyone_else": {"SCAN", "PTTL", "RENAME"},
    "delete_pattern]": {"SCAN"},
    "clear]": {"SCAN"},
    "test_deleting_a_lease_deletes_no_value": {"SCAN"},
    "test_a_namespace_is_put_before_the_key": {"PTTL"},
    "test_get_or_set_keeps_a_value_for_its_timeout_no_longer_and_no_shorter": {"PTTL"},
}
#: What is not kept without leases; ``test_nothing_is_kept_without_leases`` is in its place.
LEASES = (
    "test_get_or_set",
    "test_get_or_set_that_fails_leaves_nothing",
    "test_get_or_set_keeps_a_value_for_its_timeout_no_longer_and_no_shorter",
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        missing("redis-server", "install the program redis-server")
    server = RedisServer()
    server.start()
    yield server
    server.close()


class Limited(Stores):
    """Mix-in: every test runs as each user."""

    @pytest.fixture(params=RULES)
    def backend(
        self, server: RedisServer, request: pytest.FixtureRequest, settings: Any
    ) -> Iterator[ResilientCache]:
        # A busy machine is not an outage.
        settings.CACHE_LAYER_OPERATION_TIMEOUT = settings.CACHE_LAYER_CONNECT_TIMEOUT = 10.0
        user = User(server, request.param)
        user.create()
        backend = user.cache()
        backend.get("k")
        self._expect(request, set(backend.store.refused()))
        yield backend
        assert state(backend) == "redis"
        assert not backend.store.breaker.failed
        close(backend)
        with admin(server) as client:
            client.flushall()

    def neighbourhood(self, backend: ResilientCache) -> Any:
        """Neighbours are other projects, whose users may use their own prefixes."""
        host = backend._location.rpartition("@")[2]
        return f"redis://{host}"

    def _expect(self, request: pytest.FixtureRequest, refused: set[str]) -> None:
        name = request.node.originalname
        if "EVAL" in refused and (isinstance(self, LeaseContract) or name in LEASES):
            pytest.skip("Without scripts there are no leases.")
        needs = NEEDS.get(name, set()) | NEEDS.get(request.node.name.rpartition("-")[2], set())
        if needs & refused:
            request.applymarker(pytest.mark.xfail(raises=CommandRefusedError, strict=True))


class TestSynchronous(Limited, Synchronous, Contract):
    pass


class TestAwaited(Limited, Asynchronous, Contract):
    pass


class TestLeases(Limited, Synchronous, LeaseContract):
    pass


class TestLeasesAwaited(Limited, Asynchronous, LeaseContract):
    pass


@pytest.mark.parametrize("rule", ["-@scripting", "-eval*"])
@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["sync", "async"])
def test_nothing_is_kept_without_leases(server: RedisServer, rule: str, wrap: Any) -> None:
    user = User(server, rule)
    user.create()
    cache = user.cache()
    face = wrap(cache)
    assert [face.get_or_set("k", number) for number in (1, 2)] == [1, 2]
    assert face.get("k") is None
    assert state(cache) == "redis"
    assert "keep nothing" in FEATURES["EVAL"].without
    assert "EVAL" in cache.store.refused()
    close(cache)


@pytest.mark.parametrize("rule", RULES)
def test_functions_return_nothing_stale(server: RedisServer, rule: str) -> None:
    user = User(server, rule)
    user.create()
    calls: list[int] = []
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": user.cache()._location,
        "KEY_PREFIX": user.prefix,
    }
    with override_settings(CACHES={"default": entry}):

        @cached(ttl=60, key_prefix="f", tags=["n{number}"])
        def twice(number: int) -> int:
            calls.append(number)
            return len(calls)

        first = twice(1)
        cache: Any = caches["default"]
        kept = "EVAL" not in cache.store.refused()
        assert (twice(1) == first) is kept
        invalidate_tags("n1")
        assert twice(1) == len(calls) > first
        twice.invalidate(1)
        assert twice(1) == len(calls)
        assert state(cache) == "redis"
        close(cache)


def make_users(server: RedisServer) -> list[User]:
    """One for each rule, and one for each category of commands that this Redis has."""
    with admin(server) as client:
        rules = dict.fromkeys([*RULES, *(f"-@{name}" for name in categories(client))])
    users = [User(server, rule) for rule in rules]
    for user in users:
        user.create()
    return users


@pytest.mark.usefixtures("default_timeouts")
def test_every_user_comes_back_from_outages_with_nothing_stale(redis_server: RedisServer) -> None:
    server = redis_server
    users = make_users(server)
    found = [user.cache() for user in users]
    with admin(server) as client:
        able = [user.can_cache(client) for user in users]
    assert sum(able) > len(RULES)
    faces: list[Any] = [Awaited(cache) if n % 2 else cache for n, cache in enumerate(found)]
    try:
        for face in faces:
            face.set_many({"deleted": "old", "listed:1": "old", "kept": "right"})
            assert {face.get("kept"), face.get_many(["kept"]).get("kept")} <= {"right", None}
        for cache, is_able in zip(found, able, strict=True):
            assert state(cache) == ("redis" if is_able else "memory")

        server.stop()
        listing = []
        for face, cache in zip(faces, found, strict=True):
            face.delete("deleted")
            assert state(cache) == "memory"
            listing.append(cache.store.circuit.lists_keys)
            if listing[-1]:
                face.delete_pattern("listed:*")
            else:
                with pytest.raises(CommandRefusedError, match="SCAN"):
                    face.delete_pattern("listed:*")
        assert listing.count(False) >= 2
        server.cont()
        for user, face, cache, is_able, listed in zip(
            users, faces, found, able, listing, strict=True
        ):
            if is_able:
                wait_for(lambda cache=cache: state(cache) == "redis", f"{user.rule} is back")
                assert face.get("kept") == "right", user.rule
            assert face.get("deleted") is None, user.rule
            assert face.get("listed:1") is None or not listed, user.rule

        # Its users are lost with everything else.
        server.restart()
        for face in faces:
            face.set("k", "during")
            assert face.get("deleted") is None
        for user in users:
            user.create()
        for user, face, cache, is_able in zip(users, faces, found, able, strict=True):
            if is_able:
                wait_for(lambda cache=cache: state(cache) == "redis", f"{user.rule} is back")
                face.set("k", "new")
                assert face.get("k") == "new", user.rule
            else:
                wait_for(lambda cache=cache: reason(cache), "it says why")
    finally:
        for cache in found:
            close(cache)


def reason(cache: ResilientCache) -> bool:
    """Tell whether a right is named as the reason why memory answers."""
    described = cache.store.describe()
    return described["state"] == "memory" and "permissions" in str(described["reason"])


@pytest.mark.usefixtures("default_timeouts")
def test_the_check_and_the_metrics_name_what_is_refused(server: RedisServer) -> None:
    users = make_users(server)
    entries = {
        user.name: {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": user.cache()._location,
            "KEY_PREFIX": user.prefix,
        }
        for user in users
    }
    with admin(server) as client:
        able = {user.name: user.can_cache(client) for user in users}
        expected = {user.name: user.refused(client) for user in users}
    with override_settings(CACHES={"default": entries[users[0].name], **entries}):
        said: dict[str, list[str]] = {user.name: [] for user in users}
        for message in check_servers(databases=["default"]):
            alias = message.msg.partition("'")[2].partition("'")[0]
            if alias != "default":
                said[alias].append(f"{message.id}: {message.msg}")
        for user in users:
            lines = said[user.name]
            if not able[user.name]:
                assert [line[:16] for line in lines] == ["cache_layer.W109"], user.rule
                continue
            named = {line.partition("refuses ")[2].partition(" (")[0] for line in lines}
            assert named == expected[user.name], user.rule
            cache: Any = caches[user.name]
            assert cache.store.describe().get("refused", {}).keys() == named
            close(cache)
        assert check_servers() == []


@pytest.mark.django_db
def test_manage_py_check_names_a_refused_command(server: RedisServer) -> None:
    user = User(server, "-scan")
    user.create()
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": user.cache()._location,
        "KEY_PREFIX": user.prefix,
    }
    output = io.StringIO()
    with override_settings(CACHES={"default": entry}):
        call_command("check", databases=["default"], stdout=output, stderr=output)
        assert "cache_layer.W108" in output.getvalue()
        assert "refuses SCAN" in output.getvalue()
        assert "pw" not in output.getvalue()
        cache: Any = caches["default"]
        close(cache)


@pytest.mark.usefixtures("default_timeouts")
def test_a_user_without_scans_comes_back_after_more_changes_than_the_journal_holds(
    redis_server: RedisServer, settings: Any
) -> None:
    settings.CACHE_LAYER_JOURNAL_MAX_ENTRIES = 3
    user = User(redis_server, "-scan")
    user.create()
    cache = user.cache()
    cache.set_many({str(number): "old" for number in range(10)})
    redis_server.stop()
    for number in range(10):
        cache.delete(str(number))
    redis_server.cont()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    assert cache.get_many(map(str, range(10))) == {}
    close(cache)
