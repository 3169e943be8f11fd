"""Imported once by the process that the benchmark's workers are forked from."""

import contextlib
import importlib

for name in (
    "django",
    "psycopg",
    "langchain_postgres",
    "agents.extensions.memory",
    "google.adk.sessions",
    "agno.db.postgres",
    "sqlalchemy.ext.asyncio",
    "asyncpg",
):
    # A peer that is not installed is reported where it is used.
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
