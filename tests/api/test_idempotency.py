from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest
from rest_framework.test import APIClient

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.transfer import Importer, Line, Outcome
from tests.api.conftest import API, client_of, make_user, url
from tests.threads import at_once

SESSIONS = f"{API}sessions/"


def one(text: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def post(api: APIClient, session: Session, body: Any, key: str) -> Any:
    return api.post(url(session, "messages"), body, format="json", headers={"Idempotency-Key": key})


@pytest.mark.django_db
class TestMessages:
    def test_a_retry_gets_the_first_answer(self, api: APIClient, session: Session) -> None:
        answers = [post(api, session, one(), "k1") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.content for answer in answers}) == 1
        assert Message.objects.count() == 1
        assert Session.objects.get().message_count == 1

    def test_a_retried_batch_gets_the_first_answer(self, api: APIClient, session: Session) -> None:
        batch = {"messages": [one(), one(), one("x")]}
        answers = [post(api, session, batch, "k1") for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert Message.objects.count() == 3

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (one("a"), one("b")),
            ({"messages": [one("a"), one("b")]}, {"messages": [one("a")]}),
            ({"messages": [one("a")]}, {"messages": [one("a"), one("b")]}),
            ({"messages": [one("a"), one("b")]}, one("a")),
            (one("a"), {"messages": [one("a"), one("b")]}),
            ({"messages": [one("a"), one("b")]}, {"messages": [one("b"), one("a")]}),
        ],
    )
    def test_another_body_is_422_and_adds_nothing(
        self, api: APIClient, session: Session, first: Any, second: Any
    ) -> None:
        assert post(api, session, first, "k1").status_code == 201
        before = Message.objects.count()
        response = post(api, session, second, "k1")
        assert response.status_code == 422
        assert response.json()["code"] == "idempotency_key_reused"
        assert Message.objects.count() == before
        assert Session.objects.get().message_count == before

    def test_keys_belong_to_a_session(self, api: APIClient, owner: Any, session: Session) -> None:
        other = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
        assert post(api, session, one(), "k1").status_code == 201
        assert post(api, other, one(), "k1").status_code == 201
        assert Message.objects.count() == 2

    @pytest.mark.parametrize("key", ["", " " * 0, "x" * 201, "a\x7f", "a b", "é"])
    def test_a_bad_key_is_400(self, api: APIClient, session: Session, key: str) -> None:
        response = post(api, session, one(), key)
        assert response.status_code == 400
        assert response.json()["errors"][0]["parameter"] == "Idempotency-Key"
        assert not Message.objects.exists()

    def test_header_and_key_in_the_message_exclude_each_other(
        self, api: APIClient, session: Session
    ) -> None:
        response = post(api, session, {**one(), "idempotency_key": "k2"}, "k1")
        assert response.status_code == 400

    def test_a_key_in_the_message_serves_too(self, api: APIClient, session: Session) -> None:
        body = {**one(), "idempotency_key": "k2"}
        answers = [api.post(url(session, "messages"), body, format="json") for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert answers[0].json()["message"] == one()
        assert Message.objects.count() == 1

    def test_what_is_no_message_is_400_with_a_key_too(
        self, api: APIClient, session: Session
    ) -> None:
        for body in ({"messages": [7]}, {}, {"role": "king", "content": ""}):
            assert post(api, session, body, "k1").status_code == 400
        assert post(api, session, one(), "k1").status_code == 201


@pytest.mark.django_db
class TestHostileKeys:
    """The keys that a user puts into messages, against those of headers and of staff."""

    FORGED = ("k1", "k1⇢", "⇢k1", "k1→0", "k1→1", "{caller}⇢k1", "{staff}⇢k1", "{staff}→k1")

    @pytest.fixture
    def staff(self) -> Any:
        return make_user("staff", "add_session", "add_message", staff=True)

    @pytest.fixture(autouse=True)
    def forged(self, api: APIClient, owner: Any, session: Session, staff: Any) -> int:
        keys = [key.format(caller=owner.pk, staff=staff.pk) for key in self.FORGED]
        for key in keys:
            body = {**one("forged"), "idempotency_key": key}
            assert api.post(url(session, "messages"), body, format="json").status_code == 201
        return len(keys)

    @pytest.mark.parametrize("text", ["forged", "real"])
    @pytest.mark.parametrize("size", [1, 2])
    def test_a_header_of_the_user_meets_none_of_them(
        self, api: APIClient, session: Session, forged: int, text: str, size: int
    ) -> None:
        body = one(text) if size == 1 else {"messages": [one(text)] * size}
        answers = [post(api, session, body, "k1") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        assert Message.objects.count() == forged + size

    @pytest.mark.parametrize("text", ["forged", "real"])
    @pytest.mark.parametrize("in_header", [True, False])
    def test_staff_meet_none_of_them(
        self,
        owner: Any,
        session: Session,
        staff: Any,
        forged: int,
        text: str,
        in_header: bool,
    ) -> None:
        address = f"{url(session, 'messages')}?user={owner.pk}"
        headers = {"Idempotency-Key": "k1"} if in_header else {}
        body = one(text) if in_header else {**one(text), "idempotency_key": "k1"}
        answers = [
            client_of(staff).post(address, body, format="json", headers=headers) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        assert Message.objects.count() == forged + 1

    def test_keys_of_the_longest_kind_stay_apart(
        self, owner: Any, session: Session, staff: Any, forged: int
    ) -> None:
        address = f"{url(session, 'messages')}?user={owner.pk}"
        for end in "ab":
            body = {**one(end), "idempotency_key": "k" * 254 + end}
            for _ in range(2):
                assert client_of(staff).post(address, body, format="json").status_code == 201
        assert Message.objects.count() == forged + 2


@pytest.mark.django_db
def test_a_header_cannot_stand_for_a_line_of_an_import(api: APIClient, owner: Any) -> None:
    data = b'{"messages": [{"role": "user", "content": "hi"}], "title": "t"}'
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    key = {"Idempotency-Key": f"import:file:1:{digest}"}
    assert api.post(SESSIONS, {"agent_id": "a"}, format="json", headers=key).status_code == 201
    (result,) = Importer(owner.pk, "file").run([Line(1, data, len(data))])
    assert result.outcome is Outcome.IMPORTED


@pytest.mark.django_db
class TestSessions:
    def create(self, api: APIClient, key: str, **body: Any) -> Any:
        return api.post(
            SESSIONS, {"agent_id": "a", **body}, format="json", headers={"Idempotency-Key": key}
        )

    def test_a_retry_gets_the_same_session(self, api: APIClient) -> None:
        answers = [self.create(api, "k1", title="t", context={"a": 1}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.content for answer in answers}) == 1
        assert Session.objects.count() == 1

    def test_another_body_is_422(self, api: APIClient) -> None:
        assert self.create(api, "k1", title="t").status_code == 201
        assert self.create(api, "k1", title="u").status_code == 422
        assert Session.objects.count() == 1

    def test_a_retry_after_a_change_is_still_the_session(self, api: APIClient) -> None:
        made = self.create(api, "k1", title="t").json()
        api.patch(url(made["id"]), {"title": "changed"}, format="json")
        again = self.create(api, "k1", title="t")
        assert (again.status_code, again.json()["title"]) == (201, "changed")

    def test_users_do_not_share_keys(self, api: APIClient, stranger: Any) -> None:
        mine = self.create(api, "k1").json()["id"]
        theirs = self.create(client_of(stranger), "k1").json()["id"]
        assert mine != theirs


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("batch", [False, True])
def test_concurrent_duplicates_give_one_message_and_equal_answers(batch: bool) -> None:
    owner = make_user("owner")
    session = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    body: Any = {"messages": [one("a"), one("b")]} if batch else one()
    barrier = threading.Barrier(8)
    answers: list[tuple[int, bytes]] = []

    def client(_thread: int) -> None:
        api = client_of(owner)
        for number in range(5):
            barrier.wait(30)
            response = post(api, session, body, f"k{number}")
            answers.append((response.status_code, response.content))

    at_once(client, range(8))
    assert [status for status, _ in answers] == [201] * 40
    assert len({content for _, content in answers}) == 5
    session.refresh_from_db()
    expected = 10 if batch else 5
    assert session.message_count == Message.objects.count() == expected


@pytest.mark.django_db(transaction=True)
def test_of_different_bodies_at_once_one_is_stored_whole() -> None:
    owner = make_user("owner")
    session = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    bodies: list[Any] = [one("a"), *({"messages": [one("a")] * size} for size in (2, 3, 4))]
    barrier = threading.Barrier(len(bodies))
    answers: list[tuple[str, int]] = []

    def client(body: Any) -> None:
        api = client_of(owner)
        for number in range(8):
            barrier.wait(30)
            answers.append((f"k{number}", post(api, session, body, f"k{number}").status_code))

    at_once(client, bodies)
    for number in range(8):
        assert sorted(status for key, status in answers if key == f"k{number}") == [201, *[422] * 3]
        stored = Message.objects.filter(idempotency_key__contains=f"\x1fk{number}\x1f")
        places = sorted(stored.values_list("sequence", flat=True))
        assert places == list(range(places[0], places[0] + len(places)))
    session.refresh_from_db()
    assert session.message_count == Message.objects.count()


@pytest.mark.django_db(transaction=True)
def test_concurrent_duplicates_create_one_session() -> None:
    owner = make_user("owner")

    def client(_thread: int) -> tuple[int, bytes]:
        response = client_of(owner).post(
            SESSIONS, {"agent_id": "a"}, format="json", headers={"Idempotency-Key": "k"}
        )
        return response.status_code, response.content

    answers = at_once(client, range(8))
    assert [status for status, _ in answers] == [201] * 8
    assert len({content for _, content in answers}) == 1
    assert Session.objects.count() == 1
