"""The cache beside its peers, in one run on one Redis.

    make bench-cache [ARGS="--quick"]

Starts redis-servers of its own on free local ports and ends them. Each suite runs in a process of
its own; within it the contestants take turns.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import asdict
from pathlib import Path

from benchmarks.cache.options import FULL, QUICK, SMOKE
from benchmarks.cache.suites import ALIKE, SUITES, run
from benchmarks.report import Report

PACKAGES = (
    *("Django", "redis", "hiredis", "django-redis", "django-vcache", "aiocache", "cashews"),
    *("dogpile.cache", "django-cacheops"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about two minutes instead of ten")
    size.add_argument("--smoke", action="store_true", help="seconds, without peers: does it run?")
    parser.add_argument("--only", nargs="+", choices=SUITES, help="these suites alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and plots")
    chosen = parser.parse_args()
    if chosen.docs and (chosen.only or chosen.smoke):
        parser.error("The page shows a whole run: --docs goes with --quick alone.")
    options = QUICK if chosen.quick else SMOKE if chosen.smoke else FULL
    report = Report("cache", PACKAGES, asdict(options), server=redis_version())
    names = chosen.only or list(SUITES)
    if chosen.smoke:
        # Starting processes takes most of the time, so suites share one where they can.
        report.add(*run([name for name in names if name in ALIKE], options))
        names = [name for name in names if name not in ALIKE]
    for name in names:
        report.add(*run([name], options))
    if chosen.json:
        report.write_json(chosen.json)
    if chosen.docs:
        from benchmarks.cache.plots import draw

        report.write_docs(draw(report.tables))


def redis_version() -> str:
    answer = subprocess.run(["redis-server", "--version"], capture_output=True, text=True)
    return f"Redis {answer.stdout.partition('v=')[2].split()[0]}"


if __name__ == "__main__":
    main()
