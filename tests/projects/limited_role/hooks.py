"""The owner of the database migrates in a process of its own; the tour is the limited role's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.db import ProgrammingError, connection, transaction


def prepare() -> None:
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "-v0"],
        env={**os.environ, "HOST_MIGRATES": "1"},
        check=True,
    )


def after(tour: Any) -> None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("CREATE TABLE forbidden (id int)")
    except ProgrammingError:
        print("ok nothing can be created")
    else:
        raise AssertionError("The role may create tables: this tour has shown nothing.")
