"""Run Django's own tests of cache backends and of cached sessions over ours.

The tests come from the source distribution of the Django version that is installed. Ours runs
three times - memory only, Redis up (REDIS_URL), Redis down (a closed port) - with the signed
pickle serializer and with the default one. Fails when anything fails but what is listed below.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

HERE = Path(__file__).resolve().parent
STORE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "django-sources"

CULLING = "The memory side drops what was unused the longest; Redis has its own maxmemory policy."
EXCLUDED = {
    "test_cull": CULLING,
    "test_zero_cull": CULLING,
}
CODE = "The default serializer stores no functions and no classes."
UNPICKLABLE = "It stores an instance of a class that nobody registered; no pickle is involved."
QUERYSETS = "The default serializer stores no querysets."
SAFELY_EXCLUDED = EXCLUDED | {
    "test_data_types": CODE,
    "test_set_fail_on_pickleerror": UNPICKLABLE,
    "test_add_fail_on_pickleerror": UNPICKLABLE,
    "test_cache_read_for_model_instance_with_deferred": QUERYSETS,
    "test_cache_write_for_model_instance_with_deferred": QUERYSETS,
}
SERIALIZERS = {
    "Pickle": ("cache_layer.codec.SignedPickleSerializer", EXCLUDED),
    "Safe": ("cache_layer.codec.SafeSerializer", SAFELY_EXCLUDED),
}


def fetched() -> Path:
    """Return the folder of the installed Django's sources, downloaded where it is missing."""
    folder = STORE / f"django-{django.__version__}"
    if not folder.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--ignore-requires-python"]
        wanted = f"django=={django.__version__}"
        pip = [sys.executable, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
            pip = ["pip"]
        subprocess.run([*pip, "download", *options, "--dest", str(STORE), wanted], check=True)
        (archive,) = STORE.glob(f"[dD]jango-{django.__version__}.tar.gz")
        with tarfile.open(archive) as sources:
            sources.extractall(STORE, filter="data")
    return folder


def locations() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    found = {"Memory": "", "RedisDown": f"redis://127.0.0.1:{closed}/0"}
    if url := os.environ.get("REDIS_URL"):
        found["RedisUp"] = url
    elif os.environ.get("REQUIRE_SERVICES") == "1":
        sys.exit("REDIS_URL is required here.")
    else:
        print("REDIS_URL IS NOT SET: the tests with Redis up are left out.")
    return found


def configure() -> None:
    settings.configure(
        SECRET_KEY="only-for-tests",
        ROOT_URLCONF="django.contrib.auth.urls",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sites",
            "django.contrib.sessions",
            "django.contrib.messages",
            "cache_layer",
            "cache",
            "sessions_tests",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        SILENCED_SYSTEM_CHECKS=["cache_layer.I101"],
        SITE_ID=1,
        USE_TZ=False,
    )
    django.setup()


def emptying(tear_down: Callable[[Any], None]) -> Callable[[Any], None]:
    """Django's tests clear one alias, which for its own backends empties all on that server."""

    def clear_every_alias(case: Any) -> None:
        from django.core.cache import caches

        tear_down(case)
        for alias in caches:
            caches[alias].clear()

    return clear_every_alias


def test_classes() -> list[type]:
    from cache import tests as cache_tests
    from django.test import TestCase, override_settings
    from sessions_tests import tests as session_tests

    from cache_layer.exceptions import NotAnIntegerError

    made = []
    for place, location in locations().items():
        for kind, (serializer, excluded) in SERIALIZERS.items():
            base = {
                "BACKEND": "cache_layer.backends.ResilientCache",
                "LOCATION": location,
                "OPTIONS": {"SERIALIZER": serializer},
            }
            for parent in (
                cache_tests.BaseCacheTests,
                session_tests.CacheSessionTests,
                session_tests.CacheDBSessionTests,
            ):
                body = dict.fromkeys(excluded) | {
                    "incr_decr_type_error": NotAnIntegerError,
                    "tearDown": emptying(parent.tearDown),
                }
                bases = (parent,) if issubclass(parent, TestCase) else (parent, TestCase)
                name = f"{parent.__name__}On{place}With{kind}"
                aliases = cache_tests.caches_setting_for_tests(base=base)
                made.append(override_settings(CACHES=aliases)(type(name, bases, body)))
    return made


def main() -> None:
    sys.path[:0] = [str(fetched() / "tests"), str(HERE.parent)]
    configure()
    import unittest

    from django.test.runner import DiscoverRunner

    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{pattern}*" for pattern in sys.argv[1:]] or None
    suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, test_classes()))
    for name, reason in SAFELY_EXCLUDED.items():
        where = "" if name in EXCLUDED else " with the default serializer"
        print(f"left out{where}: {name}: {reason}")
    runner = DiscoverRunner(verbosity=1, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    result = runner.run_suite(suite)
    runner.teardown_databases(databases)
    sys.exit(bool(result.failures or result.errors))


if __name__ == "__main__":
    main()
