from __future__ import annotations

import dataclasses
import enum
import itertools
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st

from cache_layer.exceptions import UnstableArgumentError
from cache_layer.functions.arguments import CallKeys, argument_text
from cache_layer.globs import glob_match


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    ONE = 1


class Pair(NamedTuple):
    a: int
    b: int


@dataclasses.dataclass
class Filter:
    owner: int
    tags: list[str]


@dataclasses.dataclass
class Unfinished:
    owner: int
    total: int = dataclasses.field(init=False)


NAIVE = datetime.fromisoformat("2024-01-01")
DIFFERENT: list[Any] = [
    *(1, "1", True, 1.0, "True", "1.0", None, "None", "", "''", "'1'", b"1", "b'1'", Decimal(1)),
    *(0, False, 0.0, -0.0, "-0.0", "nan", float("nan"), float("inf"), "inf", Decimal("1.0")),
    *(10**30, "1" + "0" * 30, 10**90, 10**5000, 10**5000 + 1, "a" * 70, "a" * 71, "1e3", "1_000"),
    *("a:b", "a%3Ab", "a*b", "a?b", "a[b", "a]b", "a b", "a\nb", "ä", "\ud800", "\0", "#", "\\"),
    *((1,), [1], {1}, frozenset({1}), {1: 1}, {"1": 1}, (), [], {}, set(), ((),), [[]], "()"),
    *((1, 2), (2, 1), ("1", "2"), ("1,2",), [1, [2]], [[1], 2], {1: 2}, {2: 1}, Pair(1, 2)),
    *(uuid.UUID(int=1), str(uuid.UUID(int=1)), SafeString("1"), SafeString("safe'1'")),
    *(date(2024, 1, 1), "2024-01-01", NAIVE, NAIVE.replace(tzinfo=UTC)),
    *(NAIVE.replace(fold=1), datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    *(datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=n), "X")) for n in (1, 2)),
    *(time(1), time(1, tzinfo=UTC), timedelta(1), timedelta(0, 1), timedelta(0, 0, 1)),
    *(Colour.RED, Level.ONE, Colour, Level, int, str),
    *(Filter(1, ["a"]), Filter(1, ["b"]), Filter(1, []), {"owner": 1, "tags": ["a"]}),
]


def test_different_arguments_have_different_texts() -> None:
    texts = [argument_text(value) for value in DIFFERENT]
    for (a, x), (b, y) in itertools.combinations(zip(DIFFERENT, texts, strict=True), 2):
        assert x != y, (a, b)


@pytest.mark.parametrize("value", DIFFERENT, ids=range(len(DIFFERENT)))
def test_texts_are_short_and_plain(value: Any) -> None:
    text = argument_text(value)
    assert len(text) <= 42
    assert text.isascii()
    assert not set(text) & set(":*?[]\\^ \n\0")


@given(st.text(), st.text())
def test_texts_match_as_patterns_exactly_what_they_are(a: str, b: str) -> None:
    assert glob_match(argument_text(a), argument_text(b)) is (a == b)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("bob", "bob"),
        ("bob@example.com", "bob@example.com"),
        (42, "42"),
        ("42", "'42'"),
        ("2024-02-29", "2024-02-29"),
        ("1.2.3", "1.2.3"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (Decimal("1.50"), "Decimal'1.50'"),
        (uuid.UUID(int=1), "UUID'00000000-0000-0000-0000-000000000001'"),
        (date(2024, 2, 29), "date'2024-02-29'"),
        ("Größe 5", "Gr%C3%B6%C3%9Fe%205"),
    ],
)
def test_ordinary_arguments_stay_readable(value: Any, text: str) -> None:
    assert argument_text(value) == text


def test_order_counts_where_equality_says_so() -> None:
    assert argument_text({"a": 1, "b": 2}) == argument_text({"b": 2, "a": 1})
    assert argument_text({"x", "y", "z"}) == argument_text({"z", "y", "x"})


class Zone(tzinfo):
    pass


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value",
    [
        object(),
        [1, object()],
        {"a": lambda: 1},
        circle(),
        datetime(2024, 1, 1, tzinfo=Zone()),
        type("Text", (str,), {})("x"),
        Group(),
        Group(pk=3),
        AnonymousUser(),
        iter([]),
        Unfinished(1),
        [Unfinished(1)],
    ],
    ids=range(12),
)
def test_what_has_no_stable_form_is_refused(value: Any) -> None:
    with pytest.raises(UnstableArgumentError):
        argument_text(value)


@pytest.mark.django_db
def test_model_instances_are_their_label_and_key() -> None:
    group = Group.objects.create(name="a")
    assert argument_text(group) == f"auth.group'{group.pk}'"
    assert argument_text(Group.objects.only("pk").get()) == argument_text(group)
    user = get_user_model().objects.create_user(username="u")
    assert argument_text(SimpleLazyObject(lambda: user)) == argument_text(user)
    assert argument_text(user) != argument_text(group)


def plain(a: int, b: int = 2, c: str = "x") -> None: ...


def rich(a: Any, /, b: Any = 2, *rest: Any, c: Any = 3, **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, 2), {}), ((1, 2, "x"), {}), ((), {"a": 1}), ((1,), {"c": "x", "b": 2})],
)
def test_one_call_written_differently_has_one_key(args: Any, kwargs: Any) -> None:
    assert CallKeys(plain, "p").key(args, kwargs) == "p:plain:1:2:x"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, 2, "x", 4), {}),
        ((1,), {"a": 1}),
        ((1,), {"d": 1}),
        ((1, 2, "x"), {"c": "x"}),
        ((), {"b": 1}),
    ],
)
def test_an_impossible_call_has_no_key(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        CallKeys(plain, "p").key(args, kwargs)


def test_rich_signatures_do_not_confuse_their_parts() -> None:
    keys = CallKeys(rich, "p")
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}),
        ((1, 3), {}),
        ((1, 2, 3), {}),
        ((1, 2, 3, 3), {}),
        ((1,), {"c": 4}),
        ((1,), {"d": 3}),
        ((1,), {"a": 3}),
        ((1, 2, (3,)), {}),
        ((1,), {"d": 3, "e": 4}),
    ]
    assert len({keys.key(*call) for call in calls}) == len(calls)
    assert keys.key((1,), {"d": 3, "e": 4}) == keys.key((1, 2), {"e": 4, "d": 3, "c": 3})


def test_without_a_prefix_the_module_tells_functions_apart() -> None:
    assert CallKeys(plain).stem == f"{__name__}:plain:"
    assert CallKeys(Filter.__init__, "p").stem == "p:Filter.__init__:"

    def local() -> None: ...

    assert CallKeys(local, "p").key((), {}) == "p:local:"
    assert "<locals>" in CallKeys(local).stem


def test_an_argument_has_one_text_however_long_the_others_are() -> None:
    def many(*values: Any, **options: Any) -> None: ...

    def five(a: Any, b: Any, c: Any, d: Any, e: Any) -> None: ...

    values = ["a" * 10_000, uuid.uuid4(), "b" * 50, uuid.uuid4(), list(range(1000))]
    key = CallKeys(five, "p").key(tuple(values), {})
    assert key == f"p:five:{':'.join(map(argument_text, values))}"
    assert len(key) < 200
    assert len(CallKeys(many, "p").key(tuple(values), {"more": values})) < 100


def test_the_same_key_in_every_process() -> None:
    # Fixed texts: they must survive a new process, another machine and an upgrade.
    assert argument_text({"b", "a"}) == "#Y3n3y-MFR3pF-H5QMO_lXg"
    assert argument_text([1, "1", {"a": None}]) == "#k63V2Fmoujf4GsUX9Nh1Ow"
