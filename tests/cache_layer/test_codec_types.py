"""Types of the standard library, of Django and of psycopg that sessions and views contain."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import pytest
from django.db.models import IntegerChoices
from django.urls import reverse_lazy
from django.utils import translation
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy, pgettext_lazy

from agent_sessions.models import MessageRole, SessionStatus
from cache_layer.codec import SafeSerializer, UnsupportedValueError, register

codec = SafeSerializer({})


def round_trip(value: Any) -> Any:
    return codec.loads(codec.dumps(value))


@register
class Place(NamedTuple):
    name: str
    visitors: set[int] = set()


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict([("b", 1), ("a", OrderedDict())]),
        defaultdict(list, {"a": [1]}),
        defaultdict(None, {1: (2,)}),
        Place("Kyiv", {1, 2}),
        [SessionStatus.ACTIVE, {MessageRole.USER: (SessionStatus.FAILED,)}],
        {"view": memoryview(b"abc")},
    ],
)
def test_it_comes_back_equal_and_of_its_type(value: Any) -> None:
    found = round_trip({"in": [value]})["in"][0]
    assert found == value
    assert type(found) is type(value)


def test_a_defaultdict_still_makes_what_is_missing() -> None:
    assert round_trip(defaultdict(list))["new"] == []
    assert list(round_trip(OrderedDict([("b", 1), ("a", 2)]))) == ["b", "a"]
    with pytest.raises(UnsupportedValueError, match="default factory"):
        codec.dumps(defaultdict(lambda: 1))


def test_choices_in_a_container_keep_their_class() -> None:
    assert type(round_trip([SessionStatus.ACTIVE])[0]) is SessionStatus

    class Elsewhere(IntegerChoices):
        ONE = 1

    with pytest.raises(UnsupportedValueError, match="Elsewhere"):
        codec.dumps(Elsewhere.ONE)


def test_lazy_text_is_translated_by_whoever_reads_it() -> None:
    value = {"label": gettext_lazy("Yes"), "month": pgettext_lazy("alt. month", "May")}
    found = round_trip(value)
    assert type(found["label"]) is type(value["label"])
    with translation.override("de"):
        assert (str(found["label"]), str(found["month"])) == ("Ja", "Mai")
    with translation.override("fr"):
        assert str(found["label"]) == "Oui"


def test_formatted_and_reversed_text_stays_lazy() -> None:
    greeting = format_lazy("{} and {no}", gettext_lazy("Yes"), no=gettext_lazy("No"))
    with translation.override("de"):
        assert str(round_trip(greeting)) == "Ja and Nein"
    assert str(round_trip([reverse_lazy("admin:index")])[0]) == str(reverse_lazy("admin:index"))


def test_csp_constants_come_back() -> None:
    csp = pytest.importorskip("django.utils.csp", reason="Django 6.0 has it")
    found = round_trip({"default-src": [csp.CSP.SELF, csp.CSP.NONCE]})["default-src"]
    assert found == [csp.CSP.SELF, csp.CSP.NONCE]
    assert type(found[0]) is csp.CSP


def test_ranges_come_back() -> None:
    Range = pytest.importorskip("psycopg.types.range").Range  # noqa: N806
    ranges = [Range(1, 5), Range(None, 2, "(]"), Range(empty=True)]
    found = round_trip(ranges)
    assert found == ranges
    assert [each.isempty for each in found] == [False, False, True]
