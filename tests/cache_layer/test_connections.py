"""The backend's contract over TLS with client certificates, a unix socket, and RESP3."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache_layer.backends import ResilientCache
from tests import services
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.cache_layer.conftest import PATIENT
from tests.cache_layer.test_backend import Asynchronous, Contract, LeaseContract, Synchronous

pytestmark = pytest.mark.slow

Entry = tuple[str, dict[str, Any]]


def certificates(folder: Path) -> None:
    """Make an authority, and keys and certificates of a server and a client."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage=critical,keyCertSign")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority", *usage)
    for name in ("server", "client"):
        openssl(
            *new,
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"),
            *("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Entry]]:
    """How a server on a unix socket and a port is reached."""
    path = tmp_path_factory.mktemp("redis") / "redis.sock"
    with started("--unixsocket", str(path)) as server:
        yield {
            "unix": (f"unix://{path}?db=2", {}),
            "resp3": (f"redis://127.0.0.1:{server.port}/3", {"protocol": 3}),
        }


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Entry]]:
    """How a server that asks for a client's certificate is reached."""
    folder = tmp_path_factory.mktemp("redis")
    certificates(folder)
    port = services.free_port()
    listening = ("--tls-port", str(port), "--tls-ca-cert-file", str(folder / "ca.crt"))
    identity = ("--tls-cert-file", str(folder / "server.crt"))
    secret = ("--tls-key-file", str(folder / "server.key"))
    shown = {
        "ssl_ca_certs": str(folder / "ca.crt"),
        "ssl_certfile": str(folder / "client.crt"),
        "ssl_keyfile": str(folder / "client.key"),
    }
    with started(*listening, *identity, *secret):
        yield {"tls": (f"rediss://127.0.0.1:{port}/1", shown)}


@contextmanager
def started(*options: str) -> Iterator[services.RedisServer]:
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            services.missing(program, f"install the program {program}")
    server = services.RedisServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., ResilientCache]]:
    """Make a backend over the way that the parameter names."""
    server = request.getfixturevalue("tls" if request.param == "tls" else "plain")
    location, pool = server[request.param]
    made: list[ResilientCache] = []

    def make(**options: Any) -> ResilientCache:
        options = {**PATIENT, "CONNECTION_POOL_KWARGS": pool, **options}
        made.append(make_cache(location, OPTIONS=options, KEY_PREFIX=uuid.uuid4().hex))
        return made[-1]

    yield make
    for backend in made:
        backend.clear()
        backend.store.close()


every_way = pytest.mark.parametrize("make", ["tls", "unix", "resp3"], indirect=True)


@every_way
class Reached:
    @pytest.fixture
    def backend(self, make: Callable[..., ResilientCache]) -> Iterator[ResilientCache]:
        backend = make()
        yield backend
        assert state(backend) == "redis"


class TestSynchronous(Reached, Synchronous, Contract):
    pass


class TestAwaited(Reached, Asynchronous, Contract):
    pass


class TestLeases(Reached, Synchronous, LeaseContract):
    pass


class TestLeasesAwaited(Reached, Asynchronous, LeaseContract):
    pass


@every_way
def test_the_near_cache_hears_of_changes(make: Callable[..., ResilientCache]) -> None:
    reader = make(NEAR_CACHE=True)
    reader.set("k", "old")
    store = reader.store

    def is_kept() -> bool:
        return reader.get("k") == "old" and bool(store.near and len(store.near))

    wait_for(is_kept, "the value is kept in the process")
    # Another client, of which the reader's process knows nothing.
    with reader.client.get_client(write=True) as client:
        client.delete(reader.make_key("k"))
    wait_for(lambda: reader.get("k") is None, "the change is heard of")


@every_way
def test_tasks_share_a_connection(make: Callable[..., ResilientCache]) -> None:
    backend = make()

    async def many() -> list[Any]:
        await asyncio.gather(*[backend.aset(str(n), n) for n in range(200)])
        return await asyncio.gather(*[backend.aget(str(n)) for n in range(200)])

    assert asyncio.run(many()) == list(range(200))
    assert state(backend) == "redis"


@pytest.mark.parametrize("make", ["tls"], indirect=True)
def test_a_client_without_a_certificate_is_an_outage(
    make: Callable[..., ResilientCache], tls: dict[str, Entry]
) -> None:
    known = make()
    known.set("k", 1)
    assert state(known) == "redis"
    location, pool = tls["tls"]
    authority = {"ssl_ca_certs": pool["ssl_ca_certs"]}
    stranger = make_cache(location, OPTIONS={**PATIENT, "CONNECTION_POOL_KWARGS": authority})
    stranger.set("k", 2)
    assert stranger.get("k") == 2
    assert state(stranger) == "memory"
    stranger.store.close()
