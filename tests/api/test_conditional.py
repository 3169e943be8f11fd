from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import client_of, make_user, say, url
from tests.threads import at_once


def tag(api: APIClient, session: Session) -> str:
    etag: str = api.get(url(session))["ETag"]
    return etag


@pytest.mark.django_db
class TestConditions:
    def test_the_state_the_client_has_is_304_for_one_query(
        self, api: APIClient, session: Session
    ) -> None:
        etag = tag(api, session)
        with CaptureQueriesContext(connection) as queries:
            response = api.get(url(session), headers={"If-None-Match": f'"other", {etag}'})
        assert (response.status_code, response.content) == (304, b"")
        assert response["ETag"] == etag
        assert len(queries) == 1
        assert api.get(url(session), headers={"If-None-Match": '"other"'}).status_code == 200

    def test_every_change_changes_the_tag(self, api: APIClient, session: Session) -> None:
        tags = [tag(api, session)]
        say(session, "hi")
        tags.append(tag(api, session))
        tags.append(api.patch(url(session), {"title": "x"}, format="json")["ETag"])
        tags.append(api.patch(url(session, "context"), {"a": 1}, format="json")["ETag"])
        assert len(set(tags)) == 4
        assert tags[-1] == tag(api, session) == api.get(url(session, "context"))["ETag"]

    @pytest.mark.parametrize("weak", ["", "W/"])
    def test_two_editors_do_not_overwrite_each_other(
        self, api: APIClient, session: Session, weak: str
    ) -> None:
        seen = {"If-Match": weak + tag(api, session)}
        first = api.patch(url(session), {"title": "first"}, format="json", headers=seen)
        second = api.patch(url(session), {"title": "second"}, format="json", headers=seen)
        assert (first.status_code, second.status_code) == (200, 412)
        assert second.json()["code"] == "precondition_failed"
        assert Session.objects.get().title == "first"
        again = {"If-Match": first["ETag"]}
        third = api.patch(url(session), {"title": "third"}, format="json", headers=again)
        assert third.status_code == 200

    def test_a_stale_tag_stops_every_change(self, api: APIClient, session: Session) -> None:
        stale = {"If-Match": tag(api, session)}
        say(session, "hi")
        attempts = [
            api.patch(url(session, "context"), {"a": 1}, format="json", headers=stale),
            api.put(url(session, "context"), {"a": 1}, format="json", headers=stale),
            api.delete(url(session), headers=stale),
        ]
        assert [attempt.status_code for attempt in attempts] == [412] * 3
        assert Session.objects.get().context == {}

    def test_any_state_will_do_for_a_star(self, api: APIClient, session: Session) -> None:
        any_state = {"If-Match": "*"}
        assert api.delete(url(session), headers=any_state).status_code == 204
        assert api.delete(url(session), headers=any_state).status_code == 404

    def test_garbage_matches_nothing(self, api: APIClient, session: Session) -> None:
        for header in ("x", '"', "\x00", "W/", '"a" "b"'):
            response = api.delete(url(session), headers={"If-Match": header})
            assert response.status_code == 412


@pytest.mark.django_db(transaction=True)
def test_of_many_editors_at_once_one_wins() -> None:
    owner = make_user("owner")
    session = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    seen = {"If-Match": tag(client_of(owner), session)}

    def edit(number: int) -> int:
        body: dict[str, Any] = {"title": str(number)}
        response = client_of(owner).patch(url(session), body, format="json", headers=seen)
        return int(response.status_code)

    codes = at_once(edit, range(6))
    assert sorted(codes) == [200, 412, 412, 412, 412, 412]
