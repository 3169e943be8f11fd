"""Times of the API are moments, whatever the project stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo


def after(tour: Any) -> None:
    import pytest
    from django.core.exceptions import ValidationError

    from agent_sessions import Session, SyncSessionRepository

    repository = SyncSessionRepository().for_user(tour.owner)
    # Summer and winter, and the hour of autumn that local clocks show twice.
    for local, written in (
        ("2026-07-01T12:00", "2026-07-01T10:00:00Z"),
        ("2026-12-01T12:00", "2026-12-01T11:00:00Z"),
        ("2026-10-25T02:30", None),
    ):
        stored = datetime.fromisoformat(local)
        session = repository.create(Session(agent_id="clock", expires_at=stored))
        shown = tour.ask(f"sessions/{session.pk}/").json()
        address = f"sessions/{session.pk}/messages/"
        said = tour.ask(address, {"role": "user", "content": "a"}).json()["created_at"]
        assert tour.ask(address).json()["results"][0]["created_at"] == said
        Session.objects.filter(pk=session.pk).update(last_activity_at=stored)
        assert written in (None, shown["expires_at"]), shown
        for moment in (shown["created_at"], said):
            age = abs(datetime.now(UTC) - datetime.fromisoformat(moment))
            assert age < timedelta(minutes=5), moment

    def found(name: str, moment: str) -> int:
        return len(tour.ask(f"sessions/?{name}={quote(moment)}").json()["results"])

    for zone in (UTC, ZoneInfo("Asia/Tokyo")):
        now = datetime.now(zone)
        assert found("created_after", (now - timedelta(minutes=5)).isoformat()) == 3
        assert found("created_after", (now + timedelta(minutes=5)).isoformat()) == 0
    assert found("created_before", "0001-01-01T00:00:00+14:00") == 0
    assert found("activity_before", "2026-07-01T10:00:01Z") == 1
    assert found("activity_before", "2026-07-01T10:00:00Z") == 0

    seen, address = [], f"{tour.api}sessions/?ordering=-activity&page_size=1"
    while address:
        page = tour.client.get(address).json()
        seen += [each["id"] for each in page["results"]]
        address = page["next"]
    assert len(seen) == len(set(seen)) == 3

    aware = datetime(2026, 7, 1, 12, tzinfo=UTC)
    with pytest.raises(ValidationError, match="USE_TZ"):
        repository.create(Session(agent_id="clock", expires_at=aware))
    print("ok local times")
