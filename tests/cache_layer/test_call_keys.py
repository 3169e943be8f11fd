"""Calls that look alike and are not, calls that look different and are the same, wrong calls."""

from __future__ import annotations

import functools
import logging
import sys
import uuid
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.utils.decorators import method_decorator

from cache_layer import cache_invalidate, cached
from cache_layer.functions.arguments import argument_text

pytestmark = pytest.mark.usefixtures("store")


class Client:
    def __init__(self, name: str) -> None:
        self.name = name
        self.fetch = cached(key_prefix="bound")(self._fetch)
        self.fetch_one = cached(key_prefix="bound-one", include_args=False)(self._fetch)

    def _fetch(self, path: str = "/") -> str:
        return f"{self.name} {path}"


def test_results_of_methods_bound_to_objects_are_not_mixed() -> None:
    first, second = Client("first"), Client("second")
    assert first.fetch("x") == "first x"
    assert second.fetch("x") == "second x"
    assert first.fetch_one() == "first /"
    assert second.fetch_one() == "second /"


@pytest.mark.django_db
def test_methods_bound_to_model_instances_are_kept_by_instance() -> None:
    users = get_user_model().objects
    calls = []

    def describe(user: Any) -> str:
        calls.append(user.pk)
        return user.username

    def described(user: Any) -> Callable[[], str]:
        return cached(key_prefix="bound-model")(describe.__get__(user))

    one, two = (users.create_user(username=name) for name in ("one", "two"))
    for _ in range(2):
        assert (described(one)(), described(two)()) == ("one", "two")
    assert calls == [one.pk, two.pk]


@pytest.mark.django_db
def test_model_instances_of_different_databases_have_different_keys() -> None:
    user = get_user_model().objects.create_user(username="one")
    before = argument_text(user)
    user._state.db = "tenant_b"
    assert argument_text(user) != before
    user._state.db = "default"
    assert argument_text(user) == before


@cached(key_prefix="wrong")
def get_user(user_id: int) -> int:
    return user_id


@cached(key_prefix="wrong")
async def aget_user(user_id: int) -> int:
    return user_id


async def test_a_wrong_call_of_a_method_raises_as_the_function_would() -> None:
    get_user(1)
    for call in (get_user.invalidate, get_user.refresh, get_user.cache_key, get_user):
        with pytest.raises(TypeError, match="user_id"):
            call()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="user"):
            call(userid=1)  # type: ignore[call-arg]
    for awaited in (aget_user.invalidate, aget_user.refresh, aget_user):
        with pytest.raises(TypeError, match="user_id"):
            await awaited()  # type: ignore[call-arg]
    assert get_user.invalidate(1)


def test_a_class_method_above_cached_invalidates_or_refuses() -> None:
    class Users:
        @classmethod
        @cached(key_prefix="wrong-order")
        def get(cls, user_id: int) -> int:
            return user_id

    assert Users.get(1) == 1
    if sys.version_info < (3, 13):
        # There a classmethod binds what it wraps.
        assert Users.get.invalidate(1)  # type: ignore[attr-defined]
        return
    with pytest.raises(TypeError, match="user_id"):
        Users.get.invalidate(1)  # type: ignore[attr-defined]


ID = uuid.UUID("3f0e8a5c-4e0b-4f86-9a0e-2f6c3f0f9b11")


@pytest.mark.parametrize(
    ("cached_for", "called_with"),
    [
        (42, "42"),
        ("42", 42),
        (ID, str(ID)),
        (str(ID), ID),
        ("1.50", Decimal("1.50")),
        ("True", True),
        ("a*b", "a*b"),
    ],
)
def test_a_placeholder_forgets_an_argument_and_its_text(cached_for: Any, called_with: Any) -> None:
    @cached(key_prefix="forms")
    def get(first: Any, second: Any) -> str:
        return uuid.uuid4().hex

    @cache_invalidate("forms:get:{first}:{second}")
    def update(first: Any, second: Any) -> None: ...

    known, other = get(cached_for, "7"), get("something else", "7")
    update(called_with, 7)
    assert get(cached_for, "7") != known
    assert get("something else", "7") == other


def test_a_pattern_of_many_numbers_forgets_every_form_of_them() -> None:
    names = [f"n{number}" for number in range(9)]
    scope: dict[str, Any] = {}
    exec(
        f"def get({', '.join(names)}): return uuid()\ndef update({', '.join(names)}): pass",
        {"uuid": uuid.uuid4},
        scope,
    )
    get = cached(key_prefix="many")(scope["get"])
    pattern = ":".join(f"{{{name}}}" for name in names)
    update = cache_invalidate(f"many:get:{pattern}")(scope["update"])
    arguments: list[Any] = [1, "2", 3, "4", 5, "6", 7, "8", 9]
    known = get(*arguments)
    update(*range(1, 10))
    assert get(*arguments) != known


def test_many_long_arguments_warn_of_nothing() -> None:
    @cached(key_prefix="long")
    def get(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any) -> str:
        return uuid.uuid4().hex

    ids = [uuid.uuid4() for _ in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get(*ids) == get(*ids)


def with_connection(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(user_id: int) -> Any:
        return function("a connection", user_id)

    return wrapper


def with_any_connection(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("a connection", *args, **kwargs)

    return wrapper


def test_a_decorator_below_may_change_what_the_function_takes() -> None:
    @cached(key_prefix="wrapped")
    @with_connection
    def get(connection: str, user_id: int) -> str:
        return uuid.uuid4().hex

    assert get(1) == get(1) == get(user_id=1)
    assert get(1) != get(2)
    assert get.invalidate(1)


def test_a_call_that_its_signature_does_not_allow_is_not_kept_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @cached(key_prefix="wrapped")
    @with_any_connection
    def get(connection: str, user_id: int) -> str:
        return uuid.uuid4().hex

    with caplog.at_level(logging.WARNING, logger="cache_layer"):
        assert get(1) != get(1)
    (record,) = [each for each in caplog.records if "signature" in each.getMessage()]
    assert "wrapped" not in cache.keys("*")
    assert "get is called otherwise than its signature says" in record.getMessage()


def test_method_decorator_is_refused() -> None:
    class View:
        @method_decorator(cached(key_prefix="view"))
        def get(self, number: int) -> int:
            return number

    with pytest.raises(TypeError, match="Decorate the method itself"):
        View().get(1)
