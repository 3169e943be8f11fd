"""Run django-redis's own tests over our backend, in place of its ``RedisCache``.

The tests come from the source distribution of the django-redis version that is installed. Each of
their variants (serializers, compressors, Sentinel, a Unix socket) runs in a process of its own, on
servers that this script starts. Fails when anything fails but what is listed below.

Arguments are names of variants; without any, all of them run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STORE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "django-redis-sources"

CALLS = "It wants delete_pattern() to call a mock of django-redis's client; ours scans by itself."
OUTAGES = "It wants an outage to raise, or to be logged once a call; ours answers from memory."
CHANGED = "It changes OPTIONS in place after the client was made; ours has a copy of them."
EXCLUDED = {
    "test_close_disconnect_settings_cache": CHANGED,
    "test_delete_pattern_with_custom_count": CALLS,
    "test_delete_pattern_with_settings_default_scan_count": CALLS,
    "test_get_django_omit_exceptions": OUTAGES,
    "test_get_django_omit_exceptions_many_returns_default_arg": OUTAGES,
    "test_get_django_omit_exceptions_priority_1": OUTAGES,
    "test_get_django_omit_exceptions_priority_2": OUTAGES,
}
ENUMS = {
    "test_intenum": "Only pickle stores members of any enum (with msgpack it fails in theirs too).",
}
SIGNED = {
    "test_sscan_iter_with_match": "A signature stands before each member, so no pattern matches.",
}
#: What each variant puts in place of django-redis's default serializer, if anything.
VARIANTS = {
    "sqlite": "",
    "sqlite with pickle": "django_redis.serializers.pickle.PickleSerializer",
    "sqlite with signed pickle": "cache_layer.codec.SignedPickleSerializer",
    "sqlite_gzip": "",
    "sqlite_json": "",
    "sqlite_lz4": "",
    "sqlite_msgpack": "",
    "sqlite_sentinel": "",
    "sqlite_sentinel_opts": "",
    "sqlite_usock": "",
    "sqlite_zlib": "",
    "sqlite_zstd": "",
}
#: These tests are not about outages: a busy machine must not look like one.
PATIENCE = "\nCACHE_LAYER_OPERATION_TIMEOUT = CACHE_LAYER_CONNECT_TIMEOUT = 10\n"
LEFT_OUT = {
    "sqlite_herd": "HerdClient keeps values longer than asked; here @cached(stale_ttl=) does that.",
    "sqlite_sharding": "ShardClient spreads keys over servers, which this backend refuses to do.",
}


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin of pytest: put our class in place of theirs."""
    import django_redis.cache

    from cache_layer.backends import ResilientCache

    django_redis.cache.RedisCache = ResilientCache


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """As a plugin of pytest: keep the tests of this process's variant."""
    variant = os.environ["DJANGO_REDIS_VARIANT"]
    settings, _, _ = variant.partition(" ")
    excluded = excluded_from(variant)
    kept = [item for item in items if settings_of(item) == settings and name(item) not in excluded]
    left = [item for item in items if item not in kept]
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> None:
    """Empty the database before each test: theirs leave it to clear(), which empties all of it."""
    if "cache" in request.fixturenames:
        request.getfixturevalue("cache").client.get_client().flushdb()


def settings_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    # Tests without a cache run once.
    return callspec.params.get("cache_settings", "sqlite") if callspec else "sqlite"


def name(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name)


def excluded_from(variant: str) -> dict[str, str]:
    takes_enums = VARIANTS[variant] or variant == "sqlite_json"
    signed = SIGNED if variant == "sqlite with signed pickle" else {}
    return EXCLUDED | signed | ({} if takes_enums else ENUMS)


def fetched() -> Path:
    """Return the folder of the installed django-redis's sources, downloaded where it is missing."""
    number = version("django-redis")
    folder = STORE / f"django_redis-{number}"
    if not folder.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--ignore-requires-python"]
        pip = [sys.executable, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
            pip = ["pip"]
        wanted = f"django-redis=={number}"
        subprocess.run([*pip, "download", *options, "--dest", str(STORE), wanted], check=True)
        (archive,) = STORE.glob(f"django[_-]redis-{number}.tar.gz")
        with tarfile.open(archive) as sources:
            sources.extractall(STORE, filter="data")
    return folder


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Start a Redis and a Sentinel; yield what in the tests' settings leads to them."""
    from tests.services import RedisServer, free_port

    socket = folder / "redis.sock"
    server = RedisServer("--unixsocket", str(socket))
    sentinel_port = free_port()
    config = folder / "sentinel.conf"
    services = ("127.0.0.1", "default_service")
    lines = (f"sentinel monitor {service} 127.0.0.1 {server.port} 1" for service in services)
    config.write_text("\n".join([f"port {sentinel_port}", f"dir {folder}", *lines]) + "\n")
    server.start()
    sentinel = subprocess.Popen(
        ["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        yield {
            # Two of the locations are no URLs: one has two ports, one no scheme.
            "127.0.0.1:6379:1": f"127.0.0.1:{server.port}/1",
            '"127.0.0.1:6379?db=5,127': f'"redis://127.0.0.1:{server.port}?db=5,redis://127',
            "127.0.0.1:6379": f"127.0.0.1:{server.port}",
            '"127.0.0.1", 26379': f'"127.0.0.1", {sentinel_port}',
            "/tmp/redis.sock": str(socket),
        }
    finally:
        sentinel.kill()
        sentinel.wait(10)
        server.close()


def prepare(copy: Path, changes: dict[str, str], serializer: str) -> None:
    """Make a copy of the tests whose settings lead to our servers."""
    shutil.copytree(fetched() / "tests", copy / "tests")
    if serializer:
        changes = changes | {'"OPTIONS": {': f'"OPTIONS": {{"SERIALIZER": "{serializer}",'}
    for settings in (copy / "tests" / "settings").glob("*.py"):
        text = settings.read_text(encoding="utf-8")
        for before, after in changes.items():
            text = text.replace(before, after)
        settings.write_text(f"{text}{PATIENCE}", encoding="utf-8")


def run(variant: str) -> subprocess.CompletedProcess[str]:
    """Run one variant, over servers of its own: each of its tests empties a whole database."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with servers(folder) as changes:
            prepare(folder, changes, VARIANTS[variant])
            return run_tests(variant, folder)


def run_tests(variant: str, folder: Path) -> subprocess.CompletedProcess[str]:
    plugins = [
        argument for plugin in ("cacheprovider", "django") for argument in ("-p", f"no:{plugin}")
    ]
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-rf", "-c", os.devnull),
            *(
                "--rootdir",
                str(folder),
                "-p",
                "django_redis_suite",
                *plugins,
                str(folder / "tests"),
            ),
        ],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_REDIS_VARIANT": variant,
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent), str(ROOT)]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main() -> None:
    sys.path.insert(0, str(ROOT))
    variants = sys.argv[1:] or list(VARIANTS)
    for left, reason in {**LEFT_OUT, **EXCLUDED, **ENUMS, **SIGNED}.items():
        print(f"left out: {left}: {reason}")
    fetched()
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(run, variants))
    for variant, result in zip(variants, results, strict=True):
        summary = result.stdout if result.returncode else result.stdout.splitlines()[-1]
        print(f"{variant}: {summary}")
    sys.exit(any(result.returncode for result in results))


if __name__ == "__main__":
    main()
