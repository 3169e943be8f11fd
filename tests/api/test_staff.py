"""What staff may see of another user's sessions with the permission to view them, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from agent_sessions.models import Session
from tests.api.conftest import client_of, make_user
from tests.api.test_isolation import secret as secret

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("more", ["{id}/messages/", "search/?q=secret", "?text=secret"])
def test_permission_to_view_sessions_is_none_to_read_messages(
    owner: Any, secret: Session, more: str
) -> None:
    address = f"/api/v1/sessions/{more}".replace("{id}", str(secret.pk))
    address += ("&" if "?" in address else "?") + f"user={owner.pk}"
    weak = make_user("weak", "view_session", staff=True)
    strong = make_user("strong", "view_session", "view_message", staff=True)
    assert client_of(weak).get(address).status_code == 403
    assert client_of(strong).get(address).status_code == 200


def test_permission_to_view_sessions_is_enough_for_their_list(owner: Any, secret: Session) -> None:
    weak = client_of(make_user("weak", "view_session", staff=True))
    for filters in ("", "&active=true", "&page=1"):
        listed = weak.get(f"/api/v1/sessions/?user={owner.pk}{filters}")
        assert [each["id"] for each in listed.json()["results"]] == [str(secret.pk)]
