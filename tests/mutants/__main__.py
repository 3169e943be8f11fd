"""Print how many mutants of each module the tests notice: `python -m tests.mutants`."""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Self

from tests.mutants.operators import sample
from tests.mutants.plan import ROOT, Group, modules, test_files
from tests.mutants.runner import Job, Unchanged, work


def main() -> int:
    """Return 0 if enough is noticed."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=4, help="mutants of each module")
    parser.add_argument("--only", default="*", help="a pattern of modules")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        parser.error("set DATABASE_URL=postgres://user@host:5432/name: half of the SQL is for it")
    chosen = {
        path: group for path, group in modules().items() if fnmatch.fnmatch(str(path), options.only)
    }
    with Workers(options.workers, sorted(set(chosen.values()))) as workers:
        tests, longest = as_it_is(workers, set(chosen.values()))
        jobs = [
            Job(
                f"{path}:{mutant.line}: {mutant.what}",
                path,
                mutant.code,
                tests[group],
                group.migrated,
                longest[group],
            )
            for path, group in chosen.items()
            for mutant in sample(
                (ROOT / path).read_text(encoding="utf-8"),
                options.each,
                random.Random(f"{options.seed} {path}"),
            )
        ]
        random.Random(options.seed).shuffle(jobs)
        return report(noticed(workers, jobs))


class Workers:
    """Processes that do jobs; those that are over end them, too."""

    def __init__(self, number: int, groups: list[Group]) -> None:
        context = multiprocessing.get_context("spawn")
        self._jobs, self._results = context.Queue(), context.Queue()
        tests = sorted({file for group in groups for file in test_files(group)})
        self._processes = [
            context.Process(target=work, args=(each, self._jobs, self._results, tests))
            for each in range(number)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._jobs.cancel_join_thread()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def do(self, jobs: Sequence[Job | Unchanged]) -> Iterator[tuple[str, Any, float]]:
        """Yield name, outcome and seconds of each job as it is done."""
        for job in jobs:
            self._jobs.put(job)
        for _job in jobs:
            yield self._results.get()


def as_it_is(
    workers: Workers, groups: set[Group]
) -> tuple[dict[Group, list[str]], dict[Group, float]]:
    """Run the tests as the code is; return those of each group that pass, and their time limit."""
    names = {f"= {group.modules}": group for group in sorted(groups)}
    unchanged = [Unchanged(name, test_files(each), each.migrated) for name, each in names.items()]
    tests: dict[Group, list[str]] = {}
    longest: dict[Group, float] = {}
    for name, failed, seconds in workers.do(unchanged):
        group = names[name]
        print(f"{name} as it is: {seconds:.0f} s", *failed, sep="\n  fails: ", flush=True)
        # What fails anyhow says nothing of mutants.
        left_out = [word for each in failed for word in ("--deselect", each)]
        tests[group] = [*test_files(group), *left_out]
        longest[group] = 60 + 3 * seconds
    return tests, longest


def noticed(workers: Workers, jobs: list[Job]) -> dict[str, bool]:
    """Return, for each mutant, whether the tests notice it."""
    found: dict[str, bool] = {}
    for number, (name, failed, seconds) in enumerate(workers.do(jobs), 1):
        found[name] = failed
        if not failed:
            print(f"{number}/{len(jobs)} SURVIVED {name} ({seconds:.0f} s)", flush=True)
    return found


def report(found: dict[str, bool]) -> int:
    """Print the scores; return 0 if they are high enough."""
    by_module: dict[str, list[bool]] = defaultdict(list)
    for name, noticed in found.items():
        by_module[name.partition(":")[0]].append(noticed)
    low = False
    for module, verdicts in sorted(by_module.items()):
        score = 100 * sum(verdicts) / len(verdicts)
        low |= score < 85
        print(f"{score:5.0f} %  {sum(verdicts):3} of {len(verdicts):3}  {module}")
    every = [noticed for verdicts in by_module.values() for noticed in verdicts]
    score = 100 * sum(every) / len(every)
    print(f"{score:5.1f} %  {sum(every):3} of {len(every):3}  all")
    return int(low or score < 95)


if __name__ == "__main__":
    sys.exit(main())
