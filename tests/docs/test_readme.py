"""What the README states about settings is what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from agent_sessions.conf import Settings as SessionSettings
from cache_layer.app_settings import AppSettings
from cache_layer.conf import Settings as CacheSettings

ROW = re.compile(r"^\| `(AGENT_SESSIONS|CACHE_LAYER)_(\w+)` \| `(.+?)` \|", re.MULTILINE)
README = Path(__file__).resolve().parents[2] / "README.md"


def defaults(settings: type[AppSettings]) -> dict[str, object]:
    return {settings.prefix + name: default for name, default in settings.defaults.items()}


def test_the_table_lists_every_setting_with_its_default() -> None:
    listed = {
        f"{prefix}_{name}": ast.literal_eval(default)
        for prefix, name, default in ROW.findall(README.read_text(encoding="utf-8"))
    }
    assert listed == {
        **defaults(SessionSettings),
        **defaults(CacheSettings),
    }
