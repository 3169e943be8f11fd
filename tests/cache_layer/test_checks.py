from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.checks import CheckMessage, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

BACKEND = "cache_layer.backends.ResilientCache"


def entry(**parts: Any) -> dict[str, Any]:
    return {
        "BACKEND": BACKEND,
        "LOCATION": "redis://127.0.0.1:6379/0",
        "KEY_PREFIX": "app",
        **parts,
    }


def messages(default: dict[str, Any] | None = None, **settings: Any) -> list[CheckMessage]:
    settings.setdefault("CACHES", {"default": entry() if default is None else default})
    with override_settings(**settings):
        found = run_checks(tags=[Tags.caches])
    return [message for message in found if (message.id or "").startswith("cache_layer.")]


def only(found: list[CheckMessage], check_id: str) -> str:
    assert [message.id for message in found] == [f"cache_layer.{check_id}"]
    return f"{found[0].msg} | {found[0].hint}"


def test_a_good_configuration_has_nothing_to_report() -> None:
    assert messages() == []
    assert messages(entry(TIMEOUT=None)) == []
    assert messages(entry(LOCATION=["rediss://u:p@a/0", "unix:///run/redis.sock?db=1"])) == []
    assert messages(entry(OPTIONS={"SERIALIZER": "cache_layer.codec.SafeSerializer"})) == []
    assert messages(CACHE_LAYER_OPERATION_TIMEOUT=1, CACHE_LAYER_LEASE_TTL=1) == []


@pytest.mark.parametrize(
    ("check_id", "name", "value", "allowed"),
    [
        ("E001", "ALIAS", "", "the name of a CACHES entry"),
        ("E001", "ALIAS", 3, "the name of a CACHES entry"),
        ("E002", "MEMORY_MAX_ENTRIES", -1, "a whole number from 1"),
        ("E002", "MEMORY_MAX_ENTRIES", 1.5, "a whole number from 1"),
        ("E006", "BREAKER_FAILURES", True, "a whole number from 1"),
        ("E003", "OPERATION_TIMEOUT", "abc", "a number of seconds above 0"),
        ("E003", "OPERATION_TIMEOUT", 0, "a number of seconds above 0"),
        ("E005", "PROBE_INTERVAL", float("nan"), "a number of seconds above 0"),
        ("E004", "CONNECT_TIMEOUT", None, "a number of seconds above 0"),
    ],
)
def test_a_wrong_value_of_a_setting(check_id: str, name: str, value: Any, allowed: str) -> None:
    message = only(messages(**{f"CACHE_LAYER_{name}": value}), check_id)
    assert f"CACHE_LAYER_{name} is {value!r}: it must be {allowed}." in message


def test_w001_an_unknown_name() -> None:
    message = only(messages(CACHE_LAYER_OPERATION_TIMOUT=1), "W001")
    assert "CACHE_LAYER_OPERATION_TIMOUT is not a setting" in message
    assert "Did you mean CACHE_LAYER_OPERATION_TIMEOUT?" in message
    assert "CACHE_LAYER_ALIAS" in only(messages(CACHE_LAYER_Q=1), "W001")


def test_e101_an_alias_that_does_not_exist() -> None:
    message = only(messages(CACHE_LAYER_ALIAS="redis"), "E101")
    assert "'redis'" in message
    assert "Entries of CACHES: default" in message


def test_e102_another_kind_of_cache() -> None:
    message = only(messages({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}), "W107")
    assert "DummyCache" in message
    assert BACKEND in message


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("localhost:6379", "it must begin with redis://"),
        ("http://localhost", "it must begin with redis://"),
        ("redis://localhost:port/0", "Port could not be cast"),
        ("redis://localhost:99999/0", "out of range"),
        ("redis://[::1/0", "Invalid IPv6 URL"),
        ("redis://localhost/zero", "the database is a number, not 'zero'"),
        ("unix://", "the path of the socket is missing"),
        (["redis://a/0", 5], "it is not a string"),
    ],
)
def test_e103_a_location_that_is_no_url(location: Any, problem: str) -> None:
    assert problem in only(messages(entry(LOCATION=location)), "E103")


def test_e103_does_not_print_the_password() -> None:
    message = only(messages(entry(LOCATION="redis://me:hunter2@host/zero")), "E103")
    assert "hunter2" not in message
    assert "redis://me:***@host/zero" in message
    message = only(messages(entry(LOCATION="redis://host/zero?password=hunter2&db=1")), "E103")
    assert "redis://host/zero?password=***&db=1" in message


@pytest.mark.parametrize("timeout", ["abc", -1, 1.5, True, "60"])
def test_e104_a_timeout_that_is_no_number_of_seconds(timeout: Any) -> None:
    message = only(messages(entry(TIMEOUT=timeout)), "E104")
    assert f"is {timeout!r}" in message
    assert "CACHE_DEFAULT_TTL" in message


def test_e105_a_location_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "django_redis" else find_spec(name, *rest),
    )
    message = only(messages(), "E105")
    assert "django_redis cannot be imported" in message
    assert "[redis]" in message


@pytest.mark.parametrize("option", ["SERIALIZER", "COMPRESSOR"])
@pytest.mark.parametrize("path", ["cache_layer.codec.Safe", "no.such", "plain", "os.path.join", 5])
def test_e106_a_serializer_or_compressor_that_is_none(option: str, path: Any) -> None:
    message = only(messages(entry(OPTIONS={option: path})), "E106")
    assert f"{option} in OPTIONS of CACHES['default'] is {path!r}" in message


@pytest.mark.parametrize("most", [0, -5, "many", 1.5, None])
def test_e107_a_wrong_number_of_entries(most: Any) -> None:
    assert f"{most!r}" in only(messages(entry(OPTIONS={"MAX_ENTRIES": most})), "E107")


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("yes", "it must be True, False or a dictionary"),
        ({"max_entires": 5}, "it knows max_entries, max_bytes, namespaces, not 'max_entires'"),
        ({"max_entries": 0}, "max_entries must be a whole number above 0"),
        ({"max_bytes": 1.5}, "max_bytes must be a whole number above 0"),
        ({"namespaces": "users"}, "namespaces must be a list of strings"),
    ],
)
def test_e109_a_near_cache_that_cannot_be(option: Any, problem: str) -> None:
    message = only(messages(entry(OPTIONS={"NEAR_CACHE": option})), "E109")
    assert f"is {option!r}: {problem}." in message


def test_near_caches_that_can_be() -> None:
    for option in (
        *(None, True, False, {}),
        *({"max_entries": 5, "namespaces": ["users", ""]}, {"namespaces": []}),
    ):
        assert messages(entry(OPTIONS={"NEAR_CACHE": option})) == []


def test_w101_unsigned_pickle() -> None:
    options = {"SERIALIZER": "django_redis.serializers.pickle.PickleSerializer"}
    assert "run code in this process" in only(messages(entry(OPTIONS=options)), "W101")
    signed = {"SERIALIZER": "cache_layer.codec.SignedPickleSerializer"}
    assert messages(entry(OPTIONS=signed)) == []
    json = {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}
    assert messages(entry(OPTIONS=json)) == []


def test_e111_an_outage_option_that_cannot_be() -> None:
    for option in ("never", None, {"users": "redis"}, ["raise"]):
        assert f"is {option!r}" in only(messages(entry(OPTIONS={"ON_OUTAGE": option})), "E111")
    for option in ("memory", "raise", {"users": "raise", "": "memory"}):
        assert messages(entry(OPTIONS={"ON_OUTAGE": option})) == []


def test_w105_prefixes_that_begin_with_another() -> None:
    shop, second = entry(KEY_PREFIX="shop"), entry(KEY_PREFIX="shop:2")
    elsewhere = entry(KEY_PREFIX="shop:2", LOCATION="redis://127.0.0.1:6379/9")

    def both(other: dict[str, Any]) -> list[CheckMessage]:
        return messages(CACHES={"default": shop, "second": other})

    assert "'shop:2' of CACHES['second']" in only(both(second), "W105")
    assert both(entry(KEY_PREFIX="shop2")) == both(entry(KEY_PREFIX="shop")) == []
    assert both(elsewhere) == []


def test_w104_sessions_that_an_outage_loses() -> None:
    strict = entry(OPTIONS={"ON_OUTAGE": "raise"})
    django, ours = "django.contrib.sessions.backends.cache", "cache_layer.sessions"
    for engine, default in ((django, entry()), (django, strict), (ours, entry())):
        message = only(messages(default, SESSION_ENGINE=engine), "W104")
        assert "cached_db" in message
    assert messages(strict, SESSION_ENGINE=ours) == []
    assert messages(SESSION_ENGINE="django.contrib.sessions.backends.cached_db") == []


def test_w102_no_prefix() -> None:
    assert "clear() deletes it" in only(messages(entry(KEY_PREFIX="")), "W102")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"IGNORE_EXCEPTIONS": True}, "memory answers"),
        ({"REPLICA_READ_ONLY": False}, "replicas are not read"),
        ({"CLIENT_CLASS": "django_redis.client.HerdClient"}, "works as DefaultClient"),
    ],
)
def test_options_of_django_redis_without_effect_are_named(
    options: dict[str, Any], why: str
) -> None:
    assert why in only(messages(entry(OPTIONS=options)), "W103")


def test_i101_memory_only() -> None:
    message = only(messages({"BACKEND": BACKEND, "KEY_PREFIX": "app"}), "I101")
    assert "REDIS_URL" in message
    assert messages({"BACKEND": BACKEND, "KEY_PREFIX": "app"}, DEBUG=True) == []


def test_other_caches_are_left_alone() -> None:
    other = {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "TIMEOUT": "abc",
        "LOCATION": "x",
    }
    assert messages(CACHES={"default": entry(), "other": other}) == []
    assert "CACHES['third']" in only(
        messages(CACHES={"default": entry(), "third": entry(TIMEOUT=-1)}), "E104"
    )


def test_the_check_command_prints_it_readably() -> None:
    out = io.StringIO()
    with (
        override_settings(CACHES={"default": entry(TIMEOUT="abc")}),
        pytest.raises(SystemCheckError) as caught,
    ):
        call_command("check", tags=[Tags.caches], stdout=out, stderr=out)
    text = str(caught.value)
    assert "(cache_layer.E104) TIMEOUT of CACHES['default'] is 'abc'" in text
    assert "HINT: Correct it there" in text
