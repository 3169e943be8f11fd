"""Which modules are mutated, and which tests look at each of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Group(NamedTuple):
    """Modules with the tests that are about them, the most telling first."""

    modules: str
    tests: tuple[str, ...]
    #: The database is made anew for each mutation: migrations use these modules.
    migrated: bool = False


_CACHE = "tests/cache_layer/"
_SESSIONS = "tests/agent_sessions/"

_LEASES = (
    *("test_failed_computations", "test_exceptions_of_coroutines", "test_decorators*"),
    *("test_tag*", "test_renewal*", "test_backend*", "test_envelope", "test_key*"),
    *("test_variadic_keys", "test_commit", "test_near*", "test_interface", "test_invalidat*"),
)
_STORE = (
    *("test_backend*", "test_failed_computations", "test_tag*", "test_near*", "test_renewal*"),
    *("test_recovery*", "test_forked_circuit", "test_long_journals", "test_outage*", "test_line*"),
    *("test_interface", "test_metrics*", "test_envelope", "test_decorators"),
)
_REPOSITORY = (
    *("test_append*", "test_repository*", "test_windows", "test_signals", "test_models*"),
    *("test_changes_and_order", "test_racing_keys", "test_conditions", "test_search*"),
    *("test_excerpts", "test_loading*", "test_message*"),
)

#: First match wins. Whole packages, so that a module that is new or renamed is looked at, too.
GROUPS = (
    Group("cache_layer/functions/*.py", tuple(_CACHE + name for name in _LEASES)),
    Group("cache_layer/backends/**/*.py", tuple(_CACHE + name for name in _STORE)),
    Group(
        "cache_layer/[bgj]*.py",
        tuple(
            _CACHE + name
            for name in ("test_breaker", "test_journal", "test_globs", "test_manager", *_STORE)
        ),
    ),
    Group("cache_layer/pubsub.py", (_CACHE + "test_notices", _CACHE + "test_pubsub*")),
    Group(
        "agent_sessions/postgresql/*.py",
        tuple(_SESSIONS + name for name in _REPOSITORY),
        migrated=True,
    ),
    Group(
        "agent_sessions/search/*.py",
        tuple(_SESSIONS + name for name in ("test_search*", "test_excerpts", "test_changes*")),
    ),
    Group("agent_sessions/repository/*.py", tuple(_SESSIONS + name for name in _REPOSITORY)),
    Group("agent_sessions/[mql][oeu]*.py", tuple(_SESSIONS + name for name in _REPOSITORY)),
    Group("agent_sessions/api/*.py", ("tests/api/test_[a-eg-su-z]*", "tests/api/test_throttling")),
)

#: Only names, imports and options: nothing in them that a test could notice.
LEFT_OUT = ("__init__.py", "migration_operations.py")


def modules() -> dict[Path, Group]:
    """Return the modules to mutate, in order, with their groups.

    :raises SystemExit: a group has no module or a pattern of tests no file: names have moved.
    """
    found: dict[Path, Group] = {}
    for group in GROUPS:
        paths = sorted(ROOT.glob(group.modules))
        if not paths:
            raise SystemExit(f"tests/mutants/plan.py: there is no {group.modules}")
        if not test_files(group):
            raise SystemExit(f"tests/mutants/plan.py: there are no tests for {group.modules}")
        for path in paths:
            if path.name not in LEFT_OUT:
                found.setdefault(path.relative_to(ROOT), group)
    return found


def test_files(group: Group) -> list[str]:
    """Return the test files of a group, each once, in its order."""
    found = [path for name in group.tests for path in sorted(ROOT.glob(f"{name}.py"))]
    return [str(path.relative_to(ROOT)) for path in dict.fromkeys(found)]
