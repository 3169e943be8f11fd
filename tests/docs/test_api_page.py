"""docs/api.md lists what the REST API has."""

from __future__ import annotations

import re
from pathlib import Path

from agent_sessions.api.filters import SessionFilter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_page_lists_every_filter_of_sessions() -> None:
    (listed,) = re.findall(r"^Filters: (.*?)\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", listed)) == set(SessionFilter.base_filters)
