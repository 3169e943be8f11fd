"""A generator of requests from the schema finds no 5xx, no undocumented answer, no lie in it.

By default a run ends after some seconds, wherever it is. SCHEMATHESIS_SECONDS gives it longer.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.contrib.auth import get_user_model

from tests import services
from tests.processes import Project, end, wait_until
from tests.projects.test_projects import database
from tests.services import free_port

CONFIG = Path(__file__).with_name("schemathesis.toml")
# A list of messages that were deleted is there afterwards, too, and empty. What is not there after
# its deletion has tests of its own.
LEFT_OUT = "use_after_free"
EVERY_CHECK = ["--checks", "all", "--exclude-checks", LEFT_OUT]
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS") or 8)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([*EVERY_CHECK, "--generation-allow-x00", "false"], id="every check"),
        # No schema can say that no string, however deep in an object, has a NUL. With NUL in
        # the data all checks hold but the one that valid data is accepted.
        pytest.param(
            ["--checks", "all", "--exclude-checks", f"{LEFT_OUT},positive_data_acceptance"],
            id="NUL included",
        ),
    ],
)
def test_generated_requests_get_documented_answers(
    live_server: Any, tmp_path: Path, options: list[str]
) -> None:
    user = get_user_model().objects.create_user("client", password="secret")  # type: ignore[attr-defined]
    generate(live_server.url, "client", user.pk, options, tmp_path)


ADA = """
from django.contrib.auth import get_user_model
print(get_user_model().objects.create_user("ada", password="secret").pk)
"""


@pytest.mark.slow
def test_generated_requests_to_a_project_of_strict_policies(tmp_path: Path) -> None:
    server = os.environ.get("DATABASE_URL", "")
    with ExitStack() as stack:
        is_postgres = server.startswith("postgres")
        url = f"sqlite:///{tmp_path / 'strict.sqlite3'}"
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.projects.strict_policy.settings",
            "DATABASE_URL": stack.enter_context(database(server)) if is_postgres else url,
        }
        environment.pop("REDIS_URL", None)
        host = Project(tmp_path, environment)
        for command in (["migrate", "-v0"], ["shell", "-v0", "-c", ADA]):
            made = host.start("-m", "django", *command)
            output, errors = made.communicate(timeout=120)
            assert made.returncode == 0, errors
        port = free_port()
        site = f"http://127.0.0.1:{port}"
        application = "django.core.wsgi:get_wsgi_application()"
        options = ["--threads", "4", "--log-level", "error", "--bind", f"127.0.0.1:{port}"]
        process = host.start("-m", "gunicorn", application, *options, stderr=subprocess.DEVNULL)
        stack.callback(end, process)
        wait_until("the host answers", lambda: process.poll() is not None or answers(site))
        every = [*EVERY_CHECK, "--generation-allow-x00", "false"]
        generate(site, "ada", int(output), every, tmp_path)


def answers(site: str) -> bool:
    try:
        with urlopen(f"{site}/api/v1/health/", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def generate(site: str, user: str, key: object, options: list[str], folder: Path) -> None:
    """Send generated requests to the site; fail with what schemathesis says."""
    if importlib.util.find_spec("schemathesis") is None:
        services.missing("schemathesis", "pip install schemathesis")
    run = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(CONFIG), "--no-color"),
            *("run", f"{site}/api/schema/", "--auth", f"{user}:secret"),
            *("--header", "Accept: */*"),
            *("--max-examples", "10", "--seed", "1", "--warnings", "off", "--max-failures", "5"),
            *("--max-time", str(SECONDS)),
            *options,
        ],
        cwd=folder,
        env={**os.environ, "API_USER": str(key)},
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
