"""One user's sessions, in one tenant: what is another's does not exist."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Subquery

from agent_sessions import Message, Session, SessionRepository
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db

BY_SESSION: dict[str, tuple[Any, ...]] = {
    "get": (),
    "get_session_with_messages": (),
    "get_messages": (),
    "add_message_to_session": (say(),),
    "add_messages": ([say()],),
    "get_changes": (),
    "pop_message": (),
    "clear_messages": (),
    "replace_tail": (0, [say()]),
    "update_session_context": ({"a": 1},),
    "update_session": ({"title": "x"},),
    "delete": (),
}


@pytest.fixture
def theirs(make_session: Any, other_user: Any) -> Session:
    made: Session = make_session(user=other_user, title="kittens")
    return made


@pytest.fixture
def in_acme(make_session: Any) -> Session:
    made: Session = make_session(tenant="acme", title="kittens")
    return made


@pytest.mark.parametrize("name", BY_SESSION)
class TestSessionOfAnother:
    def test_user_does_not_exist(self, repository, user, theirs, name):
        arguments = BY_SESSION[name]
        with pytest.raises(Session.DoesNotExist):
            getattr(repository.for_user(user), name)(theirs.id, *arguments)
        with pytest.raises(Session.DoesNotExist):
            getattr(repository, name)(theirs.id, *arguments, user_id=user.pk)
        assert (repository.get(theirs.id).title, repository.get(theirs.id).context) == (
            "kittens",
            {},
        )

    def test_tenant_does_not_exist(self, repository, user, in_acme, name):
        arguments = BY_SESSION[name]
        for tenant in ("", "other"):
            with pytest.raises(Session.DoesNotExist):
                getattr(repository.for_user(user, tenant), name)(in_acme.id, *arguments)
            with pytest.raises(Session.DoesNotExist):
                getattr(repository, name)(in_acme.id, *arguments, user_id=user.pk, tenant=tenant)
        with pytest.raises(Session.DoesNotExist):
            getattr(repository, name)(in_acme.id, *arguments, tenant="other")
        assert repository.get(in_acme.id).message_count == 0

    def test_own_one_does(self, repository, user, in_acme, name):
        arguments = BY_SESSION[name]
        bound = repository.for_user(user, "acme")
        getattr(repository, name)(in_acme.id, *arguments, user_id=user, tenant="acme")
        again = bound.create(Session(agent_id="a"))
        getattr(bound, name)(again, *arguments)


@pytest.mark.parametrize(
    ("name", "arguments"), [("update_message", (1, say("new"))), ("delete_message", (1,))]
)
def test_message_of_another_does_not_exist(
    repository, user, other_user, theirs, in_acme, name, arguments
):
    for session in (theirs, in_acme):
        repository.add_message_to_session(session.id, say("kept"))
        with pytest.raises(Session.DoesNotExist):
            getattr(repository.for_user(user), name)(session.id, *arguments)
        with pytest.raises(Session.DoesNotExist):
            getattr(repository, name)(session.id, *arguments, user_id=user)
        assert [m.content for m in repository.get_messages(session.id)] == ["kept"]
    getattr(repository.for_user(other_user), name)(theirs.id, *arguments)
    getattr(repository, name)(in_acme.id, *arguments, user_id=user, tenant="acme")


def test_lists_numbers_and_search_are_of_one_tenant(repository, user, session, in_acme):
    repository.add_message_to_session(in_acme.id, say("purring kittens"))
    repository.add_message_to_session(session.id, say("purring dogs"))
    for tenant, expected in (("acme", in_acme), ("", session)):
        bound = repository.for_user(user, tenant)
        assert bound.get_user_sessions() == [expected]
        assert repository.get_user_sessions(user.pk, tenant=tenant) == [expected]
        assert bound.get_paginated_user_sessions(1, 10).items == [expected]
        assert bound.get_session_stats().total_sessions == 1
        found = bound.search_sessions("purring")
        assert found == repository.search_sessions(user.pk, "purring", tenant=tenant) == [expected]
        assert [len(each.excerpts) for each in found] == [1]
    assert repository.for_user(user, "none").search_sessions("purring") == []
    assert len(repository.for_user(user, None).get_user_sessions()) == 2


def test_common_words_of_other_tenants_do_not_hide_matches(repository, user, make_session):
    for number in range(5):
        other = make_session(tenant="other", title=f"python {number}")
        repository.add_message_to_session(other.id, say("python"))
    mine = make_session(tenant="acme", title="snakes")
    repository.add_message_to_session(mine.id, say("pythons"))
    found = repository.for_user(user, "acme").search_sessions("python", limit=2)
    assert found == [mine]


def test_status_is_changed_in_one_tenant(repository, user, session, in_acme, theirs):
    ids = [session, in_acme.id, theirs.id]
    assert repository.for_user(user, "acme").bulk_update_session_status(ids, "paused") == 1
    assert repository.get(in_acme).status == "paused"
    assert repository.bulk_update_session_status(ids, "failed", user_id=user.pk) == 1
    assert repository.get(session).status == "failed"
    assert repository.get(theirs).status == "active"


def test_data_is_erased_in_one_tenant_or_in_all(repository, user, session, in_acme, make_session):
    assert repository.for_user(user, "acme").delete_user_data().sessions == 1
    assert repository.get(session) == session
    make_session(tenant="acme")
    assert repository.delete_user_data(user.pk).sessions == 2


def test_keys_are_used_once_in_each_tenant(repository, user):
    made = {
        repository.for_user(user, tenant).create(Session(agent_id="a", idempotency_key="k")).pk
        for tenant in ("", "acme", "acme", "other")
    }
    assert len(made) == 3


def test_a_new_session_belongs_to_the_user_of_the_repository(repository, user, other_user):
    bound = repository.for_user(user, "acme")
    made = bound.create(Session(agent_id="a"))
    assert (made.user_id, made.tenant) == (user.pk, "acme")
    with pytest.raises(ValidationError, match="another user"):
        bound.create(Session(agent_id="a", user=other_user))
    with pytest.raises(ValidationError, match="another tenant"):
        bound.create(Session(agent_id="a", tenant="other"))


@pytest.mark.parametrize("nobody", [None, get_user_model()()])
def test_nobody_has_no_repository(repository, nobody):
    if nobody is not None:
        nobody.pk = None
    with pytest.raises(ValueError, match=r"needed|not saved"):
        repository.for_user(nobody)
    with pytest.raises(ValueError, match=r"needed|not saved"):
        repository.get_user_sessions(nobody)


def test_a_tenant_that_no_database_holds_is_refused(repository, user):
    with pytest.raises(ValueError, match="not a tenant"):
        repository.for_user(user, tenant="a\0b")


@pytest.mark.parametrize("by_expression", [False, True])
def test_messages_follow_a_session_that_is_given_away(
    repository, session, other_user, by_expression
):
    repository.add_message_to_session(session.id, say())
    found = get_user_model().objects.filter(pk=other_user.pk).values("pk")
    new = Subquery(found) if by_expression else other_user.pk
    assert Session.objects.filter(pk=session.pk).update(user_id=new) == 1
    assert set(Message.objects.values_list("user_id", flat=True)) == {other_user.pk}


async def test_the_awaited_repository_is_bound_alike(user, theirs):
    bound = SessionRepository().for_user(user, "acme")
    made = await bound.create(Session(agent_id="a"))
    await bound.add_message_to_session(made, say())
    assert [m.sequence for m in await bound.get_messages(made.id)] == [1]
    assert await bound.get_user_sessions() == [made]
    with pytest.raises(Session.DoesNotExist):
        await bound.get(theirs.id)
