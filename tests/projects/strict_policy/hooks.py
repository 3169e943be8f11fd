"""After the tour nobody is cleared any more: the API is closed, whatever it thinks itself."""

from __future__ import annotations

from typing import Any

from tests.projects.strict_policy.policy import ClearedOnly


def after(tour: Any) -> None:
    ClearedOnly.cleared = set()
    for path in ("sessions/", "sessions/stats/", "sessions/search/?q=x", "sessions/export/"):
        tour.ask(path, status=403)
    tour.ask("sessions/", {"agent_id": "a"}, status=403)
    print("ok closed")
