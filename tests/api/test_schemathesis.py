"""A generator of requests from the schema finds no 5xx, no undocumented answer, no lie in it.

By default a run ends after some seconds, wherever it is. SCHEMATHESIS_SECONDS gives it longer.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from tests import services

CONFIG = Path(__file__).with_name("schemathesis.toml")
EVERY_CHECK = ["--checks", "all"]
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
            [*EVERY_CHECK, "--exclude-checks", "positive_data_acceptance"], id="NUL included"
        ),
    ],
)
def test_generated_requests(live_server: Any, tmp_path: Path, options: list[str]) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        services.missing("schemathesis", "pip install schemathesis")
    user = get_user_model().objects.create_user("client", password="secret")  # type: ignore[attr-defined]
    run = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(CONFIG), "--no-color"),
            *("run", f"{live_server.url}/api/schema/", "--auth", "client:secret"),
            *("--header", "Accept: */*"),
            *("--max-examples", "10", "--seed", "1", "--warnings", "off", "--max-failures", "5"),
            *("--max-time", str(SECONDS)),
            *options,
        ],
        cwd=tmp_path,
        env={**os.environ, "API_USER": str(user.pk)},
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
