from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import run
from urllib.parse import urlsplit

import pytest

from example_project import usage_examples
from tests.processes import ROOT, Project, project


def run_examples(example: Project) -> str:
    done = run(
        [sys.executable, "-W", "error", "-m", "example_project.usage_examples"],
        cwd=ROOT,
        env=example.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "All examples ran." in done.stdout
    assert "more than the limit of 100" in done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def leaves_nothing(example: Project) -> None:
    for table in ("agent_sessions_session", "agent_sessions_message", "auth_user"):
        assert example.scalar(f"SELECT COUNT(*) FROM {table}") == 0


@pytest.mark.slow
def test_the_examples_run_on_the_memory_cache(tmp_path: Path) -> None:
    with project(tmp_path) as example:
        for _ in range(2):
            stdout = run_examples(example)
        leaves_nothing(example)
    for function in (*usage_examples.CACHE_EXAMPLES, *usage_examples.SESSION_EXAMPLES):
        assert f"{function.__name__}: " in stdout


@pytest.mark.slow
@pytest.mark.redis
def test_the_examples_run_on_redis(tmp_path: Path, redis_url: str) -> None:
    import redis

    with project(tmp_path) as example:
        example.environment["REDIS_URL"] = redis_url
        for _ in range(2):
            run_examples(example)
        leaves_nothing(example)
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() > 0
    assert urlsplit(os.environ["REDIS_URL"]).hostname == urlsplit(redis_url).hostname
