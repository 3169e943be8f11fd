"""A hit has the related objects that the miss had loaded."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db.models import Prefetch, prefetch_related_objects

from agent_sessions.models import Message, Session
from agent_sessions.repository import SessionRepository, SyncSessionRepository
from cache_layer import cached
from cache_layer.codec import SafeSerializer, UnsupportedValueError

pytestmark = pytest.mark.django_db
codec = SafeSerializer({})


def round_trip(value: Any) -> Any:
    return codec.loads(codec.dumps(value))


@pytest.fixture
def session() -> Session:
    user = get_user_model().objects.create(username="owner")
    messages = [{"role": "user", "content": f"message {number}"} for number in range(3)]
    made = SyncSessionRepository().create(Session(user=user, agent_id="a"))
    SyncSessionRepository().add_messages(made.pk, messages)
    other = SyncSessionRepository().create(Session(user=user, agent_id="a"))
    SyncSessionRepository().add_message_to_session(other.pk, {"role": "user", "content": "other"})
    return made


def test_a_prefetched_set_needs_no_query(session: Session, django_assert_num_queries: Any) -> None:
    loaded = SyncSessionRepository().get_session_with_messages(session.pk)
    found = round_trip([loaded])[0]
    with django_assert_num_queries(0):
        assert [m.content for m in found.messages] == [m.content for m in loaded.messages]
        assert len(found.messages.all()) == 3
        # Each message leads back to the session that it came with.
        assert all(m.session is found for m in found.messages.all())
    with django_assert_num_queries(1):
        assert [m.sequence for m in found.messages.filter(sequence__gt=1)] == [2, 3]


def test_many_to_many_from_both_sides_and_nested(django_assert_num_queries: Any) -> None:
    kind = ContentType.objects.create(app_label="x", model="y")
    permission = Permission.objects.create(name="p", codename="c", content_type=kind)
    group = Group.objects.create(name="g")
    group.permissions.add(permission)
    user = get_user_model().objects.create(username="u")
    user.groups.add(group)
    prefetch_related_objects([user], "groups__permissions__content_type")
    prefetch_related_objects([group], "user_set")
    prefetch_related_objects([permission], "group_set")
    found_user, found_group, found_permission = round_trip([user, group, permission])
    with django_assert_num_queries(0):
        assert [g.name for g in found_user.groups.all()] == ["g"]
        (nested,) = found_user.groups.all()[0].permissions.all()
        assert nested.content_type == kind
        assert list(found_group.user_set.all()) == [user]
        assert list(found_permission.group_set.all()) == [group]


def test_a_filtered_prefetch_is_refused_and_to_attr_is_kept(session: Session) -> None:
    first = Message.objects.filter(sequence=1)
    filtered = Session.objects.prefetch_related(Prefetch("messages", queryset=first))
    with pytest.raises(UnsupportedValueError, match="to_attr"):
        codec.dumps(filtered.get(pk=session.pk))
    named = Session.objects.prefetch_related(Prefetch("messages", first, to_attr="opening"))
    found = round_trip(named.get(pk=session.pk))
    assert [m.content for m in found.opening] == ["message 0"]


def test_a_cached_session_keeps_its_messages_in_async_code(session: Session) -> None:
    cache.clear()
    calls = 0

    @cached(ttl=60, key_prefix="with-messages")
    async def load(session_id: Any) -> Session:
        nonlocal calls
        calls += 1
        return await SessionRepository().get_session_with_messages(session_id)

    async def twice() -> list[list[Any]]:
        return [[m.content for m in (await load(session.pk)).messages] for _ in range(2)]

    assert async_to_sync(twice)() == [[f"message {n}" for n in range(3)]] * 2
    assert calls == 1
    cache.clear()
