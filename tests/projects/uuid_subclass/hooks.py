"""Sessions with fields of the host's keep theirs and everybody's, encrypted or not."""

from __future__ import annotations

import base64
from typing import Any

from django.test import override_settings

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


def after(tour: Any) -> None:
    keep_fields(tour)
    print("ok fields of the host's")
    with cipher(b"1"):
        keep_fields(tour)
        create(tour)
    with cipher(b"2"):
        # The key is lost: what nobody can read can still be erased.
        assert SyncSessionRepository().for_user(tour.owner).delete_user_data().sessions == 1
    print("ok encrypted fields of the host's")


def cipher(key: bytes) -> override_settings:
    return override_settings(
        AGENT_SESSIONS_CIPHER="agent_sessions.ciphers.AESGCMCipher",
        AGENT_SESSIONS_CIPHER_KEYS={"1": base64.b64encode(key * 32).decode()},
    )


def create(tour: Any) -> Any:
    from tests.projects.uuid_subclass.teams.models import TeamSession

    session = TeamSession(agent_id="a", title="Ours", context={"a": 1}, team="red")
    return SyncSessionRepository().for_user(tour.owner).create(session)


def keep_fields(tour: Any) -> None:
    from tests.projects.uuid_subclass.teams.models import TeamSession

    repository = SyncSessionRepository().for_user(tour.owner)
    made = create(tour)
    repository.add_message_to_session(made.pk, {"role": "user", "content": "x"})
    stored = TeamSession.objects.get(pk=made.pk)
    stored.title, stored.plan = "Still ours", "paid"
    stored.save()
    stored = TeamSession.objects.get(pk=made.pk)
    assert (stored.title, stored.plan, stored.team) == ("Still ours", "paid", "red")
    assert (stored.message_count, stored.last_sequence) == (1, 1)
    plain = Session.objects.get(pk=made.pk)
    assert (plain.title, plain.context) == ("Still ours", {"a": 1})
    assert repository.delete_user_data().sessions == 1
    assert not TeamSession.objects.exists()
