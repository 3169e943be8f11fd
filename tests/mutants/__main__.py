"""Print how many mutants of each module the tests notice: `python -m tests.mutants`."""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import os
import pickle
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tests.mutants.operators import sample
from tests.mutants.plan import ROOT, SUITES, Recorded, Suite, modules, test_files
from tests.mutants.runner import Job, work
from tests.mutants.warm import Change, Record


def main() -> int:
    """Return 0 if enough is noticed."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=4, help="mutants of each module")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of modules")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recorded", type=Path, help="a folder that keeps what the tests cover")
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        parser.error("set DATABASE_URL=postgres://user@host:5432/name: half of the SQL is for it")
    # Ended early, it ends its workers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found: dict[str, str | None] = {}
    for suite in SUITES:
        paths = [
            path
            for path in modules(suite)
            if any(fnmatch.fnmatch(str(path), pattern) for pattern in options.only)
        ]
        if paths:
            with Workers(options.workers, suite) as workers:
                recorded = workers.record(options.recorded)
                every = mutants(suite, paths, recorded, options.seed, options.each)
                jobs = [job for job in every if not found.get(job.name)]
                random.Random(options.seed).shuffle(jobs)
                found |= noticed(workers, jobs)
    return report(found)


def mutants(
    suite: Suite, paths: list[Path], recorded: Recorded, seed: int, each: int
) -> Iterator[Job]:
    """Yield the sample of each module."""
    for path in paths:
        code = (ROOT / path).read_text(encoding="utf-8")
        migrated = fnmatch.fnmatch(str(path), suite.migrated)
        for mutant in sample(code, each, random.Random(f"{seed} {path}")):
            tests, imported = recorded.tests(path, code, mutant.line, migrated)
            change = Change(str(path), code, mutant.code, tests)
            name = f"{path}:{mutant.line}: {mutant.what}: {mutant.becomes}"
            yield Job(name, change, imported, migrated)


class Workers:
    """Processes that do jobs; those that are over end them, too."""

    def __init__(self, number: int, suite: Suite) -> None:
        context = multiprocessing.get_context("spawn")
        self._suite = suite
        self._jobs, self._results = context.Queue(), context.Queue()
        self._processes = [
            context.Process(target=work, args=(each, suite, self._jobs, self._results))
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

    def do(self, jobs: Sequence[Job | Record]) -> Iterator[tuple[str, Any, float]]:
        """Yield name, outcome and seconds of each job as it is done."""
        for job in jobs:
            self._jobs.put(job)
        for _job in jobs:
            yield self._next()

    def record(self, folder: Path | None) -> Recorded:
        """Run the tests as the code is; return what they cover.

        The folder keeps it, and later runs record only the files of tests that have changed since.
        """
        started = time.monotonic()
        kept = folder / f"{self._suite.name}.pickle" if folder else None
        recorded = Recorded()
        if kept and kept.exists():
            recorded = pickle.loads(kept.read_bytes())
        texts = {str(path): (ROOT / path).read_text("utf-8") for path in modules(self._suite)}
        collected = [self._next()[1] for _process in self._processes]
        changed = recorded.renew(test_files(collected[0][0]), texts)
        for _names, imported in collected:
            recorded.add_imported(imported)
        parts = [changed[part :: 8 * len(self._processes)] for part in range(len(changed))]
        jobs = [Record(files) for files in parts if files]
        for number, (_name, outcome, seconds) in enumerate(self.do(jobs), 1):
            recorded.add(*outcome)
            print(f"{number}/{len(jobs)} recorded ({seconds:.0f} s)", flush=True)
        seconds = time.monotonic() - started
        title = f"= {self._suite.name} as it is: {len(recorded.seconds)} tests, {seconds:.0f} s"
        # What fails anyhow says nothing of mutants.
        print(title, *sorted(recorded.failed), sep="\n  left out, as it fails: ", flush=True)
        if kept:
            kept.write_bytes(pickle.dumps(recorded))
        return recorded

    def _next(self) -> tuple[str, Any, float]:
        while self._results.empty():
            if not all(process.is_alive() for process in self._processes):
                raise SystemExit("a worker has ended; MUTANTS_LOG names a file for its output")
            time.sleep(0.05)
        result: tuple[str, Any, float] = self._results.get()
        return result


def noticed(workers: Workers, jobs: list[Job]) -> dict[str, str | None]:
    """Return, for each mutant, the test that notices it."""
    found: dict[str, str | None] = {}
    for number, (name, failed, seconds) in enumerate(workers.do(jobs), 1):
        found[name] = failed
        verdict = f"noticed by {failed}" if failed else "SURVIVED"
        print(f"{number}/{len(jobs)} {name} ({seconds:.0f} s)\n    {verdict}", flush=True)
    return found


def report(found: dict[str, str | None]) -> int:
    """Print the scores; return 0 if they are high enough."""
    by_module: dict[str, list[bool]] = defaultdict(list)
    for name, failed in found.items():
        by_module[name.partition(":")[0]].append(bool(failed))
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
