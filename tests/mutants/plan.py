"""Which modules are mutated, and which tests look at them."""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Suite(NamedTuple):
    """The core of one app with the folders of tests that are about it."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    #: Modules that migrations use: each of their mutants has a database made anew.
    migrated: str = ""
    #: Its tests look, of modules of an earlier suite, at what that suite has not noticed.
    on_sqlite: bool = False


#: Whole packages, so that a module that is new or renamed is looked at, too.
SUITES = (
    Suite(
        "cache_layer",
        (
            *("cache_layer/breaker.py", "cache_layer/globs.py", "cache_layer/journal.py"),
            *("cache_layer/pubsub.py", "cache_layer/functions/*.py"),
            "cache_layer/backends/**/*.py",
        ),
        ("tests/cache_layer",),
    ),
    Suite(
        "agent_sessions",
        (
            *("agent_sessions/loading.py", "agent_sessions/message_format.py"),
            *(
                "agent_sessions/models.py",
                "agent_sessions/querysets.py",
                "agent_sessions/queryset_writes.py",
            ),
            *("agent_sessions/postgresql/*.py", "agent_sessions/search/*.py"),
            *("agent_sessions/repository/*.py", "agent_sessions/api/*.py"),
        ),
        ("tests/agent_sessions", "tests/api", "tests/commands"),
        migrated="agent_sessions/postgresql/*.py",
    ),
    Suite(
        "agent_sessions on SQLite",
        (
            *("agent_sessions/querysets.py", "agent_sessions/search/*.py"),
            "agent_sessions/repository/*.py",
        ),
        ("tests/agent_sessions",),
        on_sqlite=True,
    ),
)

#: Only names, imports and options: nothing in them that a test could notice.
LEFT_OUT = ("__init__.py", "migration_operations.py")

#: The part of the time of all tests that those of one mutant may take. More would look at lines
#: that every test runs; those that are left out are the longest ones. It is no number of seconds,
#: because on a busy machine the same tests take more of them.
SHARE = 0.2


def modules(suite: Suite) -> list[Path]:
    """Return the modules to mutate, in order.

    Raises:
        SystemExit: A pattern has no module: names have moved.
    """
    found: dict[Path, None] = {}
    for pattern in suite.modules:
        paths = sorted(ROOT.glob(pattern))
        if not paths:
            raise SystemExit(f"tests/mutants/plan.py: there is no {pattern}")
        found |= {each.relative_to(ROOT): None for each in paths if each.name not in LEFT_OUT}
    # PostgreSQL has statements of its own.
    others = "postgresql" if suite.on_sqlite else "portable"
    found.pop(Path(f"agent_sessions/repository/{others}.py"), None)
    return list(found)


def test_files(names: Iterable[str]) -> dict[str, str]:
    """Return, by its path, what each file with tests has: their names, and its text."""
    by_file: dict[str, list[str]] = {}
    for name in sorted(names):
        by_file.setdefault(name.partition("::")[0], []).append(name)
    # Tests may be inherited from another file.
    return {
        path: "\n".join([*tests, (ROOT / path).read_text("utf-8")])
        for path, tests in by_file.items()
    }


class Recorded:
    """What each test of a suite took and which lines it ran, with the code as it is."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._tests: dict[str, dict[int, set[str]]] = {}
        self._imported: dict[str, set[int]] = {}
        #: The texts that this is about: of files with tests, and of modules.
        self._files: dict[str, str] = {}
        self._modules: dict[str, str] = {}

    def renew(self, files: Mapping[str, str], modules: Mapping[str, str]) -> list[str]:
        """Forget what has changed since; return the files whose tests are to be recorded."""
        for path, code in modules.items():
            if self._modules.get(path, code) != code:
                moved = _moved_lines(self._modules[path], code)
                by_line = self._tests.get(path, {})
                self._tests[path] = {
                    moved[line]: tests for line, tests in by_line.items() if line in moved
                }
        changed = {name for name, text in files.items() if self._files.get(name) != text}
        changed |= self._files.keys() - files.keys()
        gone = {name for name in self.seconds if name.partition("::")[0] in changed}
        self.seconds = {name: self.seconds[name] for name in self.seconds.keys() - gone}
        self.failed -= gone
        for by_line in self._tests.values():
            for tests in by_line.values():
                tests -= gone
        self._imported = {}
        self._files, self._modules = dict(files), dict(modules)
        return [name for name in files if name in changed]

    def add(
        self, seconds: dict[str, float], failed: list[str], lines: dict[str, dict[int, list[str]]]
    ) -> None:
        """Add what some of the tests did."""
        self.seconds |= seconds
        self.failed |= set(failed)
        for path, by_line in lines.items():
            for line, tests in by_line.items():
                self._tests.setdefault(path, {}).setdefault(line, set()).update(tests)

    def add_imported(self, lines: dict[str, set[int]]) -> None:
        """Add the lines that importing the tests runs."""
        for path, numbers in lines.items():
            self._imported.setdefault(path, set()).update(numbers)

    def tests(
        self, path: Path, code: str, line: int, migrated: bool
    ) -> tuple[dict[str, float], bool]:
        """Return the tests that a change of this line may break, and whether imports run it.

        Tests that call what the line decorates come first, then those of the module's name, then
        the quickest of each file. Lines that only imports run may matter to all tests that run
        anything of the module or name it, and so may those that only processes of a test run.
        What is in the database matters to all.
        """
        of_module = self._tests.get(str(path), {})
        numbers = statement_lines(code, line)
        at_import = not numbers.isdisjoint(self._imported.get(str(path), set()))
        chosen = set[str]().union(*(of_module.get(number, ()) for number in numbers))
        at_import = at_import or is_remembered(code, line)
        if at_import or not chosen:
            chosen = set[str]().union(*of_module.values(), self._naming(path))
        if migrated or not chosen:
            chosen = set(self.seconds)
        calling = set[str]().union(
            *(of_module.get(number, ()) for number in decorated_lines(code, line))
        )
        return dict(self._telling(path.stem, chosen - self.failed, calling)), at_import

    def _naming(self, path: Path) -> Iterator[str]:
        """Yield the tests that have a module's name, and those in files that name its path."""
        yield from (name for name in self.seconds if path.stem in name)
        dotted = re.compile(rf"\b{'.'.join(path.with_suffix('').parts)}\b")
        files = {name.partition("::")[0] for name in self.seconds}
        naming = {each for each in files if dotted.search((ROOT / each).read_text("utf-8"))}
        yield from (name for name in self.seconds if name.partition("::")[0] in naming)

    def _telling(
        self, module: str, tests: Iterable[str], calling: set[str]
    ) -> Iterator[tuple[str, float]]:
        seen: Counter[str] = Counter()
        ranks: dict[str, tuple[bool, bool, int, float]] = {}
        for name in sorted(tests, key=lambda name: self.seconds[name]):
            file = name.partition("::")[0]
            seen[file] += 1
            ranks[name] = name not in calling, module not in name, seen[file], self.seconds[name]
        left = SHARE * sum(self.seconds.values())
        for name in sorted(ranks, key=lambda name: ranks[name]):
            left -= self.seconds[name]
            if left >= 0:
                yield name, self.seconds[name]


def _moved_lines(before: str, after: str) -> dict[int, int]:
    """Return where each line of a text is in another that was made of it, if it is there."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    return {
        block.a + number: block.b + number
        for block in matcher.get_matching_blocks()
        for number in range(1, block.size + 1)
    }


def statement_lines(code: str, line: int) -> set[int]:
    """Return the lines of the innermost statement around a line, without those in its body."""
    inner: ast.stmt | None = None
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.stmt) or not _start(node) <= line <= (node.end_lineno or 0):
            continue
        if inner is None or _start(node) >= _start(inner):
            inner = node
    if inner is None:
        return {line}
    body = getattr(inner, "body", None)
    end = _start(body[0]) - 1 if body else inner.end_lineno
    return set(range(_start(inner), max(end or 0, _start(inner)) + 1))


def decorated_lines(code: str, line: int) -> set[int]:
    """Return the lines of the function that the line decorates, or begins."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = _start(node.body[0])
            if _start(node) <= line < body:
                return set(range(body, (node.end_lineno or body) + 1))
    return set()


def is_remembered(code: str, line: int) -> bool:
    """Return whether a line is in a function that runs once, so that it matters to later tests."""
    return any(
        isinstance(node, ast.FunctionDef)
        and _start(node) <= line <= (node.end_lineno or 0)
        and any("cache" in ast.unparse(each) for each in node.decorator_list)
        for node in ast.walk(ast.parse(code))
    )


def _start(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", ())
    return min([node.lineno, *(each.lineno for each in decorators)])
