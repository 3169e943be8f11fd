"""System checks: what is wrong with the cache's configuration, and what to write instead."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from cache_layer.conf import PREFIX, Settings, settings
from cache_layer.redact import without_password

SCHEMES = ("redis", "rediss", "unix")

_PLUGGABLE: Final = {"SERIALIZER": ("dumps", "loads"), "COMPRESSOR": ("compress", "decompress")}


def register() -> None:
    """Register every check of this module under the ``caches`` tag."""
    for check in (check_settings, check_alias, check_entries):
        checks.register(check, checks.Tags.caches)


def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report ``CACHE_LAYER_*`` settings of a wrong value (E001) or an unknown name (W001)."""
    return [*_wrong_values(), *_unknown_names()]


def check_alias(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report an alias that does not exist (E002) or is another kind of cache (E003)."""
    alias = settings.ALIAS
    if _expected(alias, "default"):
        return []  # E001 says so already.
    entry = django_settings.CACHES.get(alias)
    if entry is None:
        return [
            checks.Error(
                f"CACHE_LAYER_ALIAS is {alias!r}, but CACHES has no such entry.",
                hint=f"CACHES has {_listed(django_settings.CACHES)}.",
                id="cache_layer.E002",
            )
        ]
    if not _is_resilient(entry):
        return [
            checks.Error(
                f"CACHES[{alias!r}] is {entry.get('BACKEND')!r}: get_cache, cached, "
                f"cache_invalidate and the manager need cache_layer's own backend.",
                hint='Write "BACKEND": "cache_layer.backends.ResilientCache" there, or name '
                "another entry in CACHE_LAYER_ALIAS.",
                id="cache_layer.E003",
            )
        ]
    return []


def check_entries(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Look at every ``CACHES`` entry of our backend (E004 to E011, W002, W003, I001)."""
    return [
        message
        for alias, entry in django_settings.CACHES.items()
        if _is_resilient(entry)
        for examine in (_examine_location, _examine_timeout, _examine_options, _examine_cluster)
        for message in examine(alias, entry)
    ]


def _wrong_values() -> Iterator[CheckMessage]:
    for name in Settings.__annotations__:
        value = getattr(settings, name)
        default = vars(Settings)[name]
        if not (allowed := _expected(value, default)):
            continue
        yield checks.Error(
            f"{PREFIX}{name} is {value!r}: it must be {allowed}.",
            hint=f"The default is {default!r}.",
            id="cache_layer.E001",
        )


def _expected(value: Any, default: Any) -> str:
    """Say what is allowed in place of a wrong value; nothing for a right one."""
    if isinstance(default, str):
        return "" if isinstance(value, str) and value else "the name of a CACHES entry"
    whole = isinstance(default, int)
    kinds = int if whole else (int, float)
    # The comparison also refuses NaN.
    if isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < float("inf"):
        return ""
    return "a whole number above 0" if whole else "a number of seconds above 0"


def _unknown_names() -> Iterator[CheckMessage]:
    known = [PREFIX + name for name in Settings.__annotations__]
    for name in dir(django_settings):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name, known, n=1)
            yield checks.Warning(
                f"{name} is not a setting of cache_layer.",
                hint=f"Did you mean {close[0]}?" if close else f"There are {_listed(known)}.",
                id="cache_layer.W001",
            )


def _examine_location(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    location = entry.get("LOCATION")
    if not location:
        yield checks.Info(
            f"CACHES[{alias!r}] has no LOCATION: values are kept in the memory of each process, "
            "not shared between them and gone when it ends.",
            hint="Set LOCATION to the URL of a Redis (cache_from_env reads it from REDIS_URL), "
            "or silence this message.",
            id="cache_layer.I001",
        )
        return
    urls = location.split(",") if isinstance(location, str) else location
    for url in urls if isinstance(urls, list | tuple) else [urls]:
        if problem := _url_problem(url):
            yield checks.Error(
                f"LOCATION of CACHES[{alias!r}] has {without_password(url)!r}: {problem}.",
                hint="Write redis://host:6379/0, rediss://host:6379/0 (TLS) or "
                "unix:///path/to/redis.sock?db=0.",
                id="cache_layer.E004",
            )
    if missing := [m for m in ("redis", "django_redis") if importlib.util.find_spec(m) is None]:
        yield checks.Error(
            f"CACHES[{alias!r}] has a LOCATION, but {' and '.join(missing)} cannot be imported.",
            hint="Install the redis extra: pip install 'django-agent-sessions[redis]'.",
            id="cache_layer.E006",
        )
    if not entry.get("KEY_PREFIX"):
        yield checks.Warning(
            f"CACHES[{alias!r}] has no KEY_PREFIX: whatever else lives in that Redis database "
            "counts as its own, and clear() deletes it.",
            hint="Set KEY_PREFIX to a name of your project.",
            id="cache_layer.W003",
        )


def _url_problem(url: object) -> str:
    if not isinstance(url, str):
        return "it is not a string"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        return str(error).rstrip(".")
    if parts.scheme not in SCHEMES:
        return f"it must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
    if parts.scheme == "unix":
        return "" if parts.path else "the path of the socket is missing"
    if port == 0:
        return "port 0 is no port"
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        return f"the database is a number, not {database!r}"
    return ""


def _examine_timeout(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    timeout = entry.get("TIMEOUT", 300)
    if timeout is None or (type(timeout) is int and timeout >= 0):
        return
    yield checks.Error(
        f"TIMEOUT of CACHES[{alias!r}] is {timeout!r}: it must be a whole number of seconds, "
        "0 (nothing is stored) or None (nothing expires).",
        hint="Correct it there, or in CACHE_DEFAULT_TTL if cache_from_env builds the entry.",
        id="cache_layer.E005",
    )


def _examine_options(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    from cache_layer.backends.near.cache import NearOptions

    options = entry.get("OPTIONS") or {}
    most = options.get("MAX_ENTRIES", 1)
    if type(most) is not int or most < 1:
        yield checks.Error(
            f"MAX_ENTRIES in OPTIONS of CACHES[{alias!r}] is {most!r}: it must be a whole number "
            "above 0.",
            id="cache_layer.E008",
        )
    if problem := NearOptions.problem(options.get("NEAR_CACHE")):
        yield checks.Error(
            f"NEAR_CACHE in OPTIONS of CACHES[{alias!r}] is {options['NEAR_CACHE']!r}: {problem}.",
            hint='Write True, or for example {"max_entries": 10000, "namespaces": ["users"]}; '
            "with no namespaces it is for functions with near=True alone.",
            id="cache_layer.E010",
        )
    for option, methods in _PLUGGABLE.items():
        if options.get(option) and (problem := _class_problem(options[option], methods)):
            yield checks.Error(
                f"{option} in OPTIONS of CACHES[{alias!r}] is {options[option]!r}: {problem}.",
                hint=f"Name a class with {' and '.join(methods)}, or leave it out.",
                id="cache_layer.E007",
            )
    yield from _examine_client(alias, entry)
    if _pickles_unsigned(options.get("SERIALIZER")):
        yield checks.Warning(
            f"CACHES[{alias!r}] unpickles what Redis holds: whoever can write to that Redis can "
            "run code in this process.",
            hint='Use "cache_layer.codec.SignedPickleSerializer", or leave SERIALIZER out.',
            id="cache_layer.W002",
        )


def _examine_client(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if not entry.get("LOCATION"):
        return
    try:
        from cache_layer.backends.redis.transport import spreading

        refused = spreading(entry.get("OPTIONS") or {})
    except (ImproperlyConfigured, ImportError):
        # E006 tells of a missing client; a class that is not there is told of at its first use.
        return
    if refused:
        yield checks.Error(
            f"CACHES[{alias!r}] asks for {refused}, which spreads keys over several servers: "
            "this backend does not do that.",
            hint="Use one server, one with replicas behind Sentinel, or the CONNECTION_FACTORY "
            '"cache_layer.backends.redis.cluster.ClusterConnectionFactory".',
            id="cache_layer.E009",
        )


def _examine_cluster(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    options = entry.get("OPTIONS") or {}
    if not (entry.get("LOCATION") and "CONNECTION_FACTORY" in options):
        return
    from django.core.cache import caches

    try:
        from cache_layer.backends.redis.cluster import hash_tag, is_clustered

        if is_clustered(options):
            hash_tag(caches.create_connection(alias))
    except ImproperlyConfigured as problem:
        yield checks.Error(f"CACHES[{alias!r}]: {problem}", id="cache_layer.E011")
    except ImportError:
        # E006 tells of a missing client; a factory that is not there, of its first use.
        return


def _class_problem(path: Any, methods: Sequence[str]) -> str:
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


def _is_resilient(entry: Mapping[str, Any]) -> bool:
    path = entry.get("BACKEND")
    if not isinstance(path, str):
        return False
    from cache_layer.backends import ResilientCache

    try:
        backend = import_string(path)
    except ImportError:
        return False
    return isinstance(backend, type) and issubclass(backend, ResilientCache)


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
