"""The cache beside its peers, in one run on one Redis.

    make bench-cache [ARGS="--quick"]

Starts redis-servers of its own on free local ports and ends them. Each suite runs in a process of
its own; within it the contestants take turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.cache import calls, coherence, invalidation, loops, near, outage, stampede
from benchmarks.cache.delay import delayed
from benchmarks.cache.options import FULL, QUICK, SMOKE, Options
from benchmarks.report import Report, Table

PACKAGES = (
    *("Django", "redis", "hiredis", "django-redis", "django-vcache", "aiocache", "cashews"),
    *("dogpile.cache", "django-cacheops"),
)

Suite = Callable[[str, Options], list[Table]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about two minutes instead of ten")
    size.add_argument("--smoke", action="store_true", help="seconds, without peers: does it run?")
    parser.add_argument("--only", nargs="+", choices=SUITES, help="these suites alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and plots")
    chosen = parser.parse_args()
    options = QUICK if chosen.quick else SMOKE if chosen.smoke else FULL
    report = Report("cache", PACKAGES, asdict(options))
    for name in chosen.only or SUITES:
        report.add(*run(name, options))
    if chosen.json:
        report.write_json(chosen.json)
    if chosen.docs:
        from benchmarks.cache.plots import draw

        report.write_docs(draw(report.tables))


def run(name: str, options: Options) -> list[Table]:
    """Run one suite in a process of its own, on a Redis of its own."""
    from tests.services import RedisServer

    suite, distance = SUITES[name]
    server = RedisServer()
    server.start()
    try:
        # Not a multiprocessing.Pool: its workers may not have processes of their own.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
            if not distance:
                return worker.submit(suite, server.url, options).result()
            with delayed(server.port, distance) as port:
                url = f"redis://127.0.0.1:{port}/0"
                return worker.submit(suite, url, options).result()
    finally:
        server.close()


SUITES: dict[str, tuple[Suite, float]] = {
    "calls": (calls.direct, 0),
    "large": (calls.large, 0),
    "far": (calls.far, 0.002),
    "near": (near.measure, 0),
    "coherence": (coherence.measure, 0),
    "invalidation": (invalidation.measure, 0),
    "stampede": (stampede.measure, 0),
    "outage": (outage.measure, 0),
    "loops": (loops.measure, 0),
}

if __name__ == "__main__":
    main()
