"""The example project on the benchmark's own database."""

import os

os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0" * 50)
os.environ.setdefault("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
os.environ.setdefault("SESSION_MAX_MESSAGES", "100000000")

from example_project.settings import *  # noqa: F403
from example_project.settings import DATABASES, INSTALLED_APPS

DATABASES["default"]["NAME"] = os.environ.get("BENCH_DATABASE", DATABASES["default"]["NAME"])
if "sqlite3" not in DATABASES["default"]["ENGINE"]:
    OPTIONS = DATABASES["default"].get("OPTIONS", {})
    DATABASES["prepared"] = {
        **DATABASES["default"],
        "OPTIONS": {**OPTIONS, "server_side_binding": True, "prepare_threshold": 5},
    }
INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.naive"]
DEBUG = False
LOGGING_CONFIG = None
