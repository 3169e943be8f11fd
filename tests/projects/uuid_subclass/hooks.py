"""Sessions with fields of the host's keep theirs and everybody's."""

from __future__ import annotations

from typing import Any

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


def after(tour: Any) -> None:
    from tests.projects.uuid_subclass.teams.models import TeamSession

    repository = SyncSessionRepository().for_user(tour.owner)
    made = repository.create(TeamSession(agent_id="a", title="Ours", team="red"))
    repository.add_message_to_session(made.pk, {"role": "user", "content": "x"})
    stored = TeamSession.objects.get(pk=made.pk)
    stored.title, stored.plan = "Still ours", "paid"
    stored.save()
    stored = TeamSession.objects.get(pk=made.pk)
    assert (stored.title, stored.plan, stored.team) == ("Still ours", "paid", "red")
    assert (stored.message_count, stored.last_sequence) == (1, 1)
    assert Session.objects.get(pk=made.pk).title == "Still ours"
    assert repository.delete_user_data().sessions == 1
    assert not TeamSession.objects.exists()
    print("ok fields of the host's")
