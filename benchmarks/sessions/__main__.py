"""The session store beside its peers, in one PostgreSQL, in one run.

    make bench-sessions [ARGS="--quick"]

DATABASE_URL names the server; the benchmark makes a database of its own there and drops it.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.report import Report
from benchmarks.sessions import appending, maintenance, shares
from benchmarks.sessions.data import Mass
from benchmarks.sessions.database import Dsn, scratch
from benchmarks.sessions.options import FULL, QUICK, SMOKE, Options
from benchmarks.sessions.peers import connect
from benchmarks.sessions.single import FLOOR, Single, at_size, growth
from benchmarks.sessions.workers import workers

PACKAGES = (
    *("Django", "psycopg", "openai-agents", "langchain-postgres", "google-adk", "agno"),
    *("SQLAlchemy", "asyncpg"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="20,000 sessions, two to three minutes")
    size.add_argument("--smoke", action="store_true", help="seconds, without peers: does it run?")
    parser.add_argument("--sessions", type=int, help="instead of 1,000,000")
    parser.add_argument("--messages", type=int, help="instead of three a session")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and plots")
    chosen = parser.parse_args()
    if chosen.docs and chosen.smoke:
        parser.error("The page shows a whole run: --docs goes with --quick alone.")
    options = QUICK if chosen.quick else SMOKE if chosen.smoke else FULL
    if sessions := chosen.sessions:
        if sessions < sum(options.listed):
            parser.error(f"At least {sum(options.listed):,} sessions are needed.")
        options = replace(options, sessions=sessions, messages=3 * sessions)
    if chosen.messages:
        options = replace(options, messages=chosen.messages)
    report = Report("sessions", PACKAGES, asdict(options))
    with scratch() as dsn:
        report.server = server_version()
        measure(report, dsn, options)
    if chosen.json:
        report.write_json(chosen.json)
    if chosen.docs:
        from benchmarks.sessions.plots import draw

        report.write_docs(draw(report.tables))


def server_version() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {cursor.fetchone()[0].split()[0]}"


def measure(report: Report, dsn: Dsn, options: Options) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    peers, failed = connect(options.peers, dsn, set_up=True)
    talk = {
        name: peers[name].open(peers[name].converse(options.lengths[-1]))
        for name in (FLOOR, "raw psycopg, one CTE", "agent_sessions")
    }
    sizes = {}
    mass = Mass(options)
    for loaded in mass.steps():
        sizes[loaded] = at_size(peers, options, talk)
    report.add(growth(sizes))
    single = Single(peers, failed, options)
    report.add(*single.tables())
    report.add(*single.listings())
    with workers(dsn, list(peers), options.writers) as pool:
        report.add(*appending.measure(pool, peers, failed, options))
        report.add(*maintenance.measure(pool, options))
    report.add(*shares.measure(peers, options))
    for peer in peers.values():
        loop.run_until_complete(peer.aclose())
    loop.close()


if __name__ == "__main__":
    main()
