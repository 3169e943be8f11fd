"""docs/checks.md lists the system checks that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_sessions import checks as session_checks
from agent_sessions.conf import settings as session_settings
from cache_layer import checks as cache_checks
from cache_layer.app_settings import AppSettings, Rule
from cache_layer.conf import settings as cache_settings

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([EWI]\d{3})` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def rows(app: str) -> dict[str, tuple[str, str]]:
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {app}\n")[2].partition("\n## ")[0]
    found = ROW.findall(section)
    assert len({check_id for check_id, *_ in found}) == len(found)
    return {check_id: (second, third) for check_id, second, third in found}


@pytest.mark.parametrize(
    ("app", "settings", "rules"),
    [
        ("cache_layer", cache_settings, cache_checks.RULES),
        ("agent_sessions", session_settings, session_checks.RULES),
    ],
)
def test_the_page_lists_every_check(
    app: str, settings: AppSettings, rules: dict[str, tuple[str, Rule]]
) -> None:
    assert rules.keys() == settings.defaults.keys()
    of_settings = {
        check_id: (f"`{settings.prefix}{name}`", rule.allowed)
        for name, (check_id, rule) in rules.items()
    }
    listed = rows(app)
    assert {check_id: listed.pop(check_id, None) for check_id in of_settings} == of_settings
    in_code = {
        check_id
        for path in (ROOT / app).rglob("*.py")
        for check_id in re.findall(rf'"{app}\.([EWI]\d{{3}})"', path.read_text(encoding="utf-8"))
    }
    assert listed.keys() == in_code | {"W001"}


def test_each_setting_of_an_app_has_an_id_of_its_own() -> None:
    for rules in (cache_checks.RULES, session_checks.RULES):
        assert len({check_id for check_id, _ in rules.values()}) == len(rules)
