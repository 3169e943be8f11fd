"""What invalidations delete: patterns, placeholders, transactions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import transaction

from cache_layer import cache_invalidate, cached
from cache_layer.functions.templates import Template

pytestmark = pytest.mark.usefixtures("store")


class Calls(list[Any]):
    """Counts calls from threads and tasks."""


@pytest.mark.parametrize(
    ("pattern", "survives"),
    [
        ("users:get:*", False),
        ("users:get:{user_id}", False),
        ("users:get:[0-8]", False),
        ("users:get:?", False),
        ("users:get:7", False),
        ("users:get:8", True),
        ("users:other:*", True),
        ("", False),
    ],
)
def test_patterns_after_the_call(pattern: str, survives: bool) -> None:
    numbers = iter(range(100))

    @cached(key_prefix="users", namespace="ns")
    def get(user_id: int) -> int:
        return next(numbers)

    @cached(key_prefix="users", namespace="ns2")
    def get_elsewhere(user_id: int) -> int:
        return next(numbers)

    @cache_invalidate(pattern, namespace="ns")
    def update(user_id: int, fail: bool = False) -> str:
        if fail:
            raise LookupError
        return "done"

    @cache_invalidate(pattern, namespace="ns")
    async def aupdate(user_id: int) -> str:
        return "done"

    for call in (update, async_to_sync(aupdate)):
        before = get(7), get_elsewhere(7)
        with pytest.raises(LookupError):
            update(7, fail=True)
        assert get(7) == before[0]
        assert call(7) == "done"
        assert (get(7) == before[0]) is survives
        assert get_elsewhere(7) == before[1]


@pytest.mark.parametrize("value", ["42", 42, "a*b", "x:y", "[a]", "käse", uuid.uuid4(), None, "*"])
def test_placeholders_match_what_the_argument_is_in_a_key_and_nothing_else(value: Any) -> None:
    numbers = iter(range(100))

    @cached(key_prefix="p")
    def get(x: Any, page: int = 1) -> int:
        return next(numbers)

    @cache_invalidate("p:get:{x}:*")
    def update(x: Any) -> None: ...

    get(value)
    get(value, page=2)
    other = get("axb"), get("another")
    update(value)
    assert not cache.has_key(get.cache_key(value))
    assert not cache.has_key(get.cache_key(value, 2))
    assert (get("axb"), get("another")) == other


def test_placeholders_match_among_many_long_arguments() -> None:
    @cached(key_prefix="p")
    def page(tenant: uuid.UUID, user: str, project: uuid.UUID, text: str, number: int = 1) -> float:
        return time.monotonic()

    @cache_invalidate("p:page:*:{user}:*")
    def update(user: str) -> None: ...

    arguments = (uuid.uuid4(), "someone.with.a.long.name@department.example.com", uuid.uuid4())
    before = page(*arguments, "x" * 60, 2)
    assert page(*arguments, "x" * 60, 2) == before
    update(arguments[1])
    assert page(*arguments, "x" * 60, 2) > before


@pytest.mark.parametrize("value", ["123", 123, "a*"])
def test_placeholders_also_match_keys_written_by_hand(value: Any) -> None:
    @cache_invalidate("user:{user_id}")
    def update(user_id: Any) -> None: ...

    cache.set_many({f"user:{value}": 1, "user:ab": 2})
    update(value)
    assert cache.get_many([f"user:{value}", "user:ab"]) == {"user:ab": 2}


@pytest.mark.django_db
def test_placeholders_see_the_arguments_as_they_were_before_the_call(
    django_capture_on_commit_callbacks: Any,
) -> None:
    user = get_user_model().objects.create_user(username="one")

    @cached(key_prefix="u")
    def profile(user: Any) -> str:
        return "kept"

    @cache_invalidate("u:profile:{user}")
    def remove(user: Any) -> None:
        user.delete()

    profile(user)
    key = profile.cache_key(user)
    with django_capture_on_commit_callbacks(execute=True):
        remove(user)
    assert not cache.has_key(key)


def test_an_argument_without_a_stable_form_invalidates_more_rather_than_less() -> None:
    @cached(key_prefix="w")
    def get(x: int) -> int:
        return x

    @cache_invalidate("w:get:{x}")
    def update(x: Any) -> None: ...

    get(1)
    update(object())
    assert not cache.has_key(get.cache_key(1))


def test_senseless_patterns_are_refused_at_decoration() -> None:
    def update(user_id: int) -> None: ...

    with pytest.raises(ValueError, match="would delete everything"):
        cache_invalidate()(update)
    with pytest.raises(ValueError, match=r"\{user\}, which is not an argument"):
        cache_invalidate("users:{user}")(update)
    for odd in ("users:{user_id!r}", "users:{}", "users:{user_id:>3}", "users:{"):
        with pytest.raises(ValueError, match="pattern"):
            cache_invalidate(odd)(update)
    with pytest.raises(ValueError, match="namespace"):
        cache_invalidate("*", namespace="a*")(update)


@cached(key_prefix="tx")
def price(x: int) -> float:
    return time.monotonic()


@cache_invalidate("tx:price:*")
def change_price() -> None: ...


@cache_invalidate("tx:price:*")
async def achange_price() -> None: ...


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [change_price, async_to_sync(achange_price)])
def test_invalidation_waits_for_the_commit(change: Callable[[], None]) -> None:
    before = price(1)
    with transaction.atomic():
        with transaction.atomic():
            change()
        assert price(1) == before
    assert price(1) != before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [change_price, async_to_sync(achange_price)])
def test_invalidation_waits_for_the_rollback_too(change: Callable[[], None]) -> None:
    before = price(1)
    with transaction.atomic():
        change()
        assert price(1) == before
        transaction.set_rollback(True)
    assert price(1) != before


@pytest.mark.django_db(transaction=True)
def test_a_value_read_before_the_commit_does_not_outlive_it() -> None:
    price(1)
    with transaction.atomic():
        assert price.invalidate(1) is True
        stale = price(1)
    assert price(1) != stale


# --- together ------------------------------------------------------------------------------------


def test_arguments_of_very_many_forms_are_any_in_one_pattern() -> None:
    def function(*, a: int, b: int, c: int) -> None: ...

    names = frozenset("abc")
    template = Template(function, names, "pattern", "wide:{a}:{b}:{c}:end")
    forms = [str(number) for number in range(10)]
    assert template.filled_in_all_forms(dict.fromkeys(names, 1), lambda _: forms) == [
        "wide:*:*:*:end"
    ]
    assert template.filled_in_all_forms(dict.fromkeys(names, 1), lambda _: ["1"]) == [
        "wide:1:1:1:end"
    ]
