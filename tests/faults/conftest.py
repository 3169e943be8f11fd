from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_layer.backends.redis.cluster import slot_of
from cache_layer.conf import Settings
from tests import services
from tests.faults.cluster import TAG, Cluster

COLUMNS = (
    *("calls", "trips", "caught", "longest", "others", "slow", "bystander", "recovery"),
    *("stale", "errors"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One after the other: they measure, and each loads the machine by itself."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("faults"))
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def the_timeouts_that_projects_have(settings: Any) -> None:
    """Other tests may be more patient with a busy machine; here they are what is tested."""
    settings.CACHE_LAYER_OPERATION_TIMEOUT = Settings.OPERATION_TIMEOUT
    settings.CACHE_LAYER_CONNECT_TIMEOUT = Settings.CONNECT_TIMEOUT


@pytest.fixture(autouse=True)
def needs_redis_server() -> None:
    if shutil.which("redis-server") is None:
        services.missing("redis-server", "install the program redis-server")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests measured; it travels with their reports, over processes too."""
    rows = [
        dict(report.user_properties)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call" and dict(report.user_properties).get("fault")
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':<34}" + "".join(f"{name:>10}" for name in COLUMNS))
    for row in rows:
        terminalreporter.line(
            f"{row['fault']:<34}" + "".join(f"{row[name]:>10}" for name in COLUMNS)
        )
    terminalreporter.line(
        "caught: calls that waited while Redis was being given up, longest: the longest of them; "
        "others: the longest of all other calls, slow: how many of them took more than 10; "
        "bystander: the longest wait of a thread that never calls the cache. In milliseconds."
    )


@pytest.fixture(scope="module")
def quiet_cluster() -> Iterator[Cluster]:
    """One that no test breaks."""
    cluster = Cluster(slot_of(TAG), node_timeout=30_000)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(slot_of(TAG))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
