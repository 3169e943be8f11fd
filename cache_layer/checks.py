"""The system checks of cache_layer; docs/checks.md lists their ids."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from cache_layer.aliases import Options
from cache_layer.app_settings import COUNT, SECONDS, Rule, is_count, unknown_names, wrong_values
from cache_layer.conf import options_of, settings
from cache_layer.redact import without_password

_ALIAS: Final = Rule("the name of a CACHES entry", lambda v: isinstance(v, str) and v != "")

#: The number of the check and the rule of each setting. A new setting takes the next number.
RULES: Final = {
    "ALIAS": ("E001", _ALIAS),
    "MEMORY_MAX_ENTRIES": ("E002", COUNT),
    "OPERATION_TIMEOUT": ("E003", SECONDS),
    "CONNECT_TIMEOUT": ("E004", SECONDS),
    "PROBE_INTERVAL": ("E005", SECONDS),
    "BREAKER_FAILURES": ("E006", COUNT),
    "JOURNAL_MAX_ENTRIES": ("E007", COUNT),
    "LEASE_TTL": ("E008", COUNT),
    "REFRESH_PAUSE": ("E009", SECONDS),
    "METRICS_FLUSH_INTERVAL": ("E010", SECONDS),
    "NEAR_PING_INTERVAL": ("E011", SECONDS),
    "MAX_VALUE_BYTES": ("E012", COUNT),
    "MAX_DECODED_BYTES": ("E013", COUNT),
    "MEMORY_MAX_BYTES": ("E014", COUNT),
}

_SCHEMES: Final = ("redis", "rediss", "unix")
_PLUGGABLE: Final = {"SERIALIZER": ("dumps", "loads"), "COMPRESSOR": ("compress", "decompress")}
#: Options of django-redis that change nothing here, and why.
_WITHOUT_EFFECT: Final = {
    "IGNORE_EXCEPTIONS": "memory answers during an outage",
    "LOG_IGNORED_EXCEPTIONS": "an outage is logged once when it begins and once when it ends",
    "REPLICA_READ_ONLY": "replicas are not read",
}


def register() -> None:
    """Register the checks of this module: of settings, and of the servers that they name."""
    for check in (check_settings, check_alias, check_entries, check_sessions, check_prefixes):
        checks.register(check, checks.Tags.caches)
    checks.register(check_servers, checks.Tags.database)


def check_settings(**kwargs: object) -> list[CheckMessage]:
    """Report ``CACHE_LAYER_*`` settings of a wrong value or an unknown name."""
    return [
        *wrong_values("cache_layer", settings, RULES),
        *unknown_names("cache_layer", settings),
    ]


def check_alias(**kwargs: object) -> list[CheckMessage]:
    """Report a ``CACHE_LAYER_ALIAS`` that ``CACHES`` lacks or that is another kind of cache."""
    alias = settings.ALIAS
    if not _ALIAS.is_met_by(alias):
        return []  # ``check_settings`` reports it.
    entry = django_settings.CACHES.get(alias)
    if entry is None:
        return [
            checks.Error(
                f"CACHE_LAYER_ALIAS is {alias!r}, but CACHES has no such entry.",
                hint=f"Entries of CACHES: {', '.join(sorted(django_settings.CACHES))}.",
                id="cache_layer.E101",
            )
        ]
    if not _is_resilient(entry):
        return [
            checks.Warning(
                f"CACHES[{alias!r}] is {entry.get('BACKEND')!r}: leases and tags are atomic within "
                "one process only, nothing answers while its server is down, keys cannot be "
                "listed, and an invalidation by pattern deletes everything in it.",
                hint='Write "BACKEND": "cache_layer.backends.ResilientCache" there, or name '
                "another entry in CACHE_LAYER_ALIAS.",
                id="cache_layer.W107",
            )
        ]
    return []


def check_entries(**kwargs: object) -> list[CheckMessage]:
    """Report the mistakes in each ``CACHES`` entry that has the backend of cache_layer."""
    return [
        message
        for alias, entry in django_settings.CACHES.items()
        if _is_resilient(entry)
        for examine in (_examine_location, _examine_timeout, _examine_options, _examine_cluster)
        for message in examine(alias, entry)
    ]


def check_sessions(**kwargs: object) -> list[CheckMessage]:
    """Report sessions that are kept in an alias whose memory answers during an outage."""
    from cache_layer.backends import raises_on_outage

    engines = ("django.contrib.sessions.backends.cache", "cache_layer.sessions")
    alias = django_settings.SESSION_CACHE_ALIAS
    entry = django_settings.CACHES.get(alias, {})
    if (
        "django.contrib.sessions" not in django_settings.INSTALLED_APPS
        or django_settings.SESSION_ENGINE not in engines
        or not _is_resilient(entry)
        or not entry.get("LOCATION")
    ):
        return []
    is_strict = raises_on_outage(options_of(entry).get("ON_OUTAGE"), "")
    if is_strict and django_settings.SESSION_ENGINE == "cache_layer.sessions":
        return []
    return [
        checks.Warning(
            f"Sessions are in CACHES[{alias!r}] alone: whoever sends a request while Redis does "
            "not answer is logged out.",
            hint='Set SESSION_ENGINE to "django.contrib.sessions.backends.cached_db", or to '
            '"cache_layer.sessions" with OPTIONS["ON_OUTAGE"] = "raise" in that entry.',
            id="cache_layer.W104",
        )
    ]


def check_prefixes(**kwargs: object) -> list[CheckMessage]:
    """Report prefixes that begin with another one of the same Redis."""
    entries = [each for each in django_settings.CACHES.items() if _is_resilient(each[1])]
    return [
        checks.Warning(
            f"KEY_PREFIX {longer!r} of CACHES[{other!r}] begins with KEY_PREFIX {prefix!r} of "
            f"CACHES[{alias!r}]: clear() of the latter deletes the keys of both.",
            hint="Give one of them another prefix.",
            id="cache_layer.W105",
        )
        for (alias, entry), (other, second) in permutations(entries, 2)
        if entry.get("LOCATION") == second.get("LOCATION")
        and (prefix := str(entry.get("KEY_PREFIX", "")))
        and (longer := str(second.get("KEY_PREFIX", ""))).startswith(f"{prefix}:")
    ]


def check_servers(databases: Sequence[str] | None = None, **kwargs: object) -> list[CheckMessage]:
    """Report what Redis refuses to the user of each entry; for ``--database``, like other I/O."""
    return [
        message
        for alias, entry in (django_settings.CACHES.items() if databases else ())
        if _is_resilient(entry) and entry.get("LOCATION")
        for message in _examine_server(alias)
    ]


def _examine_server(alias: str) -> Iterator[CheckMessage]:
    from django.core.cache import caches

    from cache_layer.backends import FEATURES, RedisUnavailableError, ResilientCache

    cache = caches[alias]
    try:
        refused = cache.store.refused() if isinstance(cache, ResilientCache) else {}
    except (ImproperlyConfigured, ImportError):
        # Other checks report it.
        return
    except RedisUnavailableError as problem:
        yield checks.Warning(
            f"CACHES[{alias!r}]: Redis cannot be used now ({problem.reason}).",
            hint="Memory answers in each process until it can.",
            id="cache_layer.W109",
        )
        return
    for name, reply in refused.items():
        yield checks.Warning(
            f"CACHES[{alias!r}]: Redis refuses {name} ({reply}). The cache does without: "
            f"{FEATURES[name].without}.",
            hint="Allow it to the user in LOCATION, or silence this message.",
            id="cache_layer.W108",
        )


def _examine_location(alias: str, entry: Mapping[str, object]) -> Iterator[CheckMessage]:
    location = entry.get("LOCATION")
    if not location:
        # Most people develop with a cache in memory; it is worth a report elsewhere only.
        if not django_settings.DEBUG:
            yield checks.Info(
                f"CACHES[{alias!r}] has no LOCATION: each process keeps its own values in memory.",
                hint="Set LOCATION to the URL of a Redis (cache_from_env reads it from "
                "REDIS_URL), or silence this message.",
                id="cache_layer.I101",
            )
        return
    urls = location.split(",") if isinstance(location, str) else location
    for url in urls if isinstance(urls, list | tuple) else [urls]:
        if problem := _url_problem(url):
            yield checks.Error(
                f"LOCATION of CACHES[{alias!r}] has {without_password(url)!r}: {problem}.",
                hint="Write redis://host:6379/0, rediss://host:6379/0 (TLS) or "
                "unix:///path/to/redis.sock?db=0.",
                id="cache_layer.E103",
            )
    if missing := _missing_libraries():
        yield checks.Error(
            f"CACHES[{alias!r}] has a LOCATION, but {' and '.join(missing)} cannot be imported.",
            hint="Install the redis extra: pip install 'django-agent-sessions[redis]'.",
            id="cache_layer.E105",
        )
    if not entry.get("KEY_PREFIX"):
        yield checks.Warning(
            f"CACHES[{alias!r}] has no KEY_PREFIX: every key of that Redis database counts as "
            "one of this cache, and clear() deletes it.",
            hint="Set KEY_PREFIX to a name of your project.",
            id="cache_layer.W102",
        )


def _missing_libraries() -> list[str]:
    libraries = ("redis", "django_redis", "hiredis")
    return [name for name in libraries if importlib.util.find_spec(name) is None]


def _url_problem(url: object) -> str:
    if not isinstance(url, str):
        return "it is not a string"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        return str(error).rstrip(".")
    if parts.scheme not in _SCHEMES:
        return f"it must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    if parts.scheme == "unix":
        return "" if parts.path else "the path of the socket is missing"
    if port == 0:
        return "no server listens on port 0"
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        return f"the database is a number, not {database!r}"
    return ""


def _examine_timeout(alias: str, entry: Mapping[str, object]) -> Iterator[CheckMessage]:
    timeout = entry.get("TIMEOUT", 300)
    if timeout is None or (type(timeout) is int and timeout >= 0):
        return
    yield checks.Error(
        f"TIMEOUT of CACHES[{alias!r}] is {timeout!r}: it must be a whole number of seconds, "
        "0 (nothing is stored) or None (nothing expires).",
        hint="Correct it there, or in CACHE_DEFAULT_TTL if cache_from_env builds the entry.",
        id="cache_layer.E104",
    )


def _examine_options(alias: str, entry: Options) -> Iterator[CheckMessage]:
    from cache_layer.backends import NearOptions, outage_option_problem

    options = entry.get("OPTIONS") or {}
    limit = options.get("MAX_ENTRIES", 1)
    if not is_count(limit):
        yield checks.Error(
            f"MAX_ENTRIES in OPTIONS of CACHES[{alias!r}] is {limit!r}: it must be "
            f"{COUNT.allowed}.",
            id="cache_layer.E107",
        )
    if problem := outage_option_problem(options.get("ON_OUTAGE", "memory")):
        yield checks.Error(
            f"ON_OUTAGE in OPTIONS of CACHES[{alias!r}] is {options['ON_OUTAGE']!r}: {problem}.",
            hint='For example {"quotas": "raise"}; see docs/what-to-keep-where.md.',
            id="cache_layer.E111",
        )
    if problem := NearOptions.problem(options.get("NEAR_CACHE")):
        yield checks.Error(
            f"NEAR_CACHE in OPTIONS of CACHES[{alias!r}] is {options['NEAR_CACHE']!r}: {problem}.",
            hint='Write True, or for example {"max_entries": 10000, "namespaces": ["users"]}; '
            'with "namespaces": [] only functions with near=True use it.',
            id="cache_layer.E109",
        )
    for option, methods in _PLUGGABLE.items():
        if options.get(option) and (problem := _class_problem(options[option], methods)):
            yield checks.Error(
                f"{option} in OPTIONS of CACHES[{alias!r}] is {options[option]!r}: {problem}.",
                hint=f"Name a class with {' and '.join(methods)}, or leave it out.",
                id="cache_layer.E106",
            )
    yield from _examine_client(alias, entry)
    yield from _examine_unused(alias, options)
    if _pickles_unsigned(options.get("SERIALIZER")):
        yield checks.Warning(
            f"CACHES[{alias!r}] unpickles what Redis holds: whoever can write to that Redis can "
            "run code in this process.",
            hint='Use "cache_layer.codec.SignedPickleSerializer", or leave SERIALIZER out.',
            id="cache_layer.W101",
        )


def _examine_client(alias: str, entry: Options) -> Iterator[CheckMessage]:
    if not entry.get("LOCATION"):
        return
    from cache_layer.backends import spreading_client

    try:
        refused = spreading_client(entry.get("OPTIONS") or {})
    except (ImproperlyConfigured, ImportError):
        # E105 reports a missing library; a class that does not exist fails at its first use.
        return
    if refused:
        yield checks.Error(
            f"CACHES[{alias!r}] has {refused}, which spreads keys over several servers: "
            "this backend does not support that.",
            hint="Use one server, one with replicas behind Sentinel, or the CONNECTION_FACTORY "
            '"cache_layer.backends.redis.cluster.ClusterConnectionFactory".',
            id="cache_layer.E108",
        )


def _examine_unused(alias: str, options: Mapping[str, object]) -> Iterator[CheckMessage]:
    unused = {name: why for name, why in _WITHOUT_EFFECT.items() if name in options}
    if str(options.get("CLIENT_CLASS", "")).endswith(".HerdClient"):
        unused["CLIENT_CLASS"] = "HerdClient works as DefaultClient; @cached has stale_ttl instead"
    for name, why in unused.items():
        yield checks.Warning(
            f"{name} in OPTIONS of CACHES[{alias!r}] has no effect: {why}.",
            hint="Leave it out.",
            id="cache_layer.W103",
        )


def _examine_cluster(alias: str, entry: Options) -> Iterator[CheckMessage]:
    options = entry.get("OPTIONS") or {}
    if not (entry.get("LOCATION") and "CONNECTION_FACTORY" in options):
        return
    from django.core.cache import caches

    from cache_layer.backends import cluster_hash_tag

    try:
        cluster_hash_tag(options, caches.create_connection(alias))
    except ImproperlyConfigured as problem:
        if not _missing_libraries():
            yield checks.Error(f"CACHES[{alias!r}]: {problem}", id="cache_layer.E110")
    except ImportError:
        # A factory that does not exist fails at its first use.
        return


def _class_problem(path: object, methods: Sequence[str]) -> str:
    if not isinstance(path, str):
        return "it is not a string"
    try:
        found = import_string(path)
    except ImportError as error:
        return str(error).rstrip(".")
    missing = [method for method in methods if not hasattr(found, method)]
    return f"it has no {' and no '.join(missing)}" if missing else ""


def _pickles_unsigned(path: Any) -> bool:
    try:
        written = import_string(path)(options={}).dumps(["unsigned?"])
        return bool(pickle.loads(written) == ["unsigned?"])  # noqa: S301 - our own bytes.
    except Exception:  # noqa: BLE001 - a foreign serializer may raise anything; then it is none.
        return False


def _is_resilient(entry: Mapping[str, object]) -> bool:
    path = entry.get("BACKEND")
    if not isinstance(path, str):
        return False
    from cache_layer.backends import ResilientCache

    try:
        backend = import_string(path)
    except ImportError:
        return False
    return isinstance(backend, type) and issubclass(backend, ResilientCache)
