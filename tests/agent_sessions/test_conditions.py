"""Changes that name whose session it must be, in which state it must be, and a key for a call."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agent_sessions import IdempotencyConflict, SyncSessionRepository
from agent_sessions.models import DeletedMessage, Message, Session

pytestmark = pytest.mark.django_db
ONE = {"role": "user", "content": "x"}


class Refused(Exception):  # noqa: N818
    pass


def refuse(session: Session) -> None:
    raise Refused(session.title)


@pytest.fixture
def session(repository: SyncSessionRepository, user: Any) -> Session:
    return repository.create(Session(user=user, agent_id="a", title="mine"))


@pytest.fixture
def other(db: None) -> Any:
    return get_user_model().objects.create(username="other")


CHANGES = {
    "update_session": ({"title": "changed"},),
    "update_session_context": ({"changed": True},),
    "delete": (),
}


@pytest.mark.parametrize("name", [*CHANGES, "get_messages", "add_message_to_session"])
def test_another_users_session_does_not_exist(
    repository: SyncSessionRepository, session: Session, user: Any, other: Any, name: str
) -> None:
    arguments = CHANGES.get(name, (ONE,) if name.startswith("add") else ())
    call = getattr(repository, name)
    before = Session.objects.values().get()
    with pytest.raises(Session.DoesNotExist):
        call(session.pk, *arguments, user_id=other)
    assert Session.objects.values().get() == before
    call(session.pk, *arguments, user_id=user.pk)


def test_a_number_too_large_for_a_user_is_nobodys(
    repository: SyncSessionRepository, session: Session
) -> None:
    if isinstance(session.user_id, uuid.UUID):
        pytest.skip("The keys of users are no numbers.")
    for append in (
        lambda: repository.add_message_to_session(session.pk, ONE, user_id=2**62),
        lambda: repository.add_messages(session.pk, [ONE, ONE], user_id=2**62),
    ):
        with pytest.raises(Session.DoesNotExist):
            append()
    assert Message.objects.count() == 0


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_check_refuses_does_not_happen(
    repository: SyncSessionRepository, session: Session, user: Any, other: Any, name: str
) -> None:
    call = getattr(repository, name)
    before = Session.objects.values().get()
    with pytest.raises(Refused, match="mine"):
        call(session.pk, *CHANGES[name], check=refuse)
    with pytest.raises(Session.DoesNotExist):
        call(session.pk, *CHANGES[name], user_id=other, check=refuse)
    assert Session.objects.values().get() == before
    seen: list[str] = []
    call(session.pk, *CHANGES[name], user_id=user, check=lambda found: seen.append(found.title))
    assert seen == ["mine"]


@pytest.mark.parametrize(
    ("first", "second"), [(1, 2), (2, 1), (3, 2)], ids=["more", "fewer", "fewer of many"]
)
def test_a_key_for_the_call_is_for_all_of_its_messages(
    repository: SyncSessionRepository, session: Session, first: int, second: int
) -> None:
    add = repository.add_messages
    added = add(session.pk, [ONE] * first, idempotency_key="k")
    again = add(session.pk, [ONE] * first, idempotency_key="k")
    assert [row.sequence for row in again] == [row.sequence for row in added]
    with pytest.raises(IdempotencyConflict):
        add(session.pk, [ONE] * second, idempotency_key="k")
    assert Message.objects.count() == first
    assert len(add(session.pk, [ONE] * second, idempotency_key="k2")) == second


@pytest.mark.parametrize("key", ["", "a\n", "x" * 241, 7])
def test_bad_keys_for_a_call(repository: SyncSessionRepository, session: Session, key: Any) -> None:
    with pytest.raises(ValidationError, match="A key is"):
        repository.add_messages(session.pk, [ONE], idempotency_key=key)
    longest = [ONE] * 1000
    assert len(repository.add_messages(session.pk, longest, idempotency_key="x" * 240)) == 1000


def test_keys_of_messages_and_of_the_call_exclude_each_other(
    repository: SyncSessionRepository, session: Session
) -> None:
    keyed = {**ONE, "idempotency_key": "a"}
    with pytest.raises(ValidationError, match="not both"):
        repository.add_messages(session.pk, [ONE, keyed], idempotency_key="k")
    assert not Message.objects.exists()


@pytest.mark.postgres
def test_a_deletion_is_five_queries(repository: SyncSessionRepository, session: Session) -> None:
    repository.add_messages(session.pk, [ONE] * 3)
    # A process reads each content type once.
    ContentType.objects.get_for_models(Session, Message, DeletedMessage, for_concrete_models=False)
    with CaptureQueriesContext(connection) as queries:
        repository.delete(session.pk)
    # One of them takes texts out of the admin's log.
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 5
