from __future__ import annotations

import dataclasses
import enum
import math
import pickle
import random
import threading
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import ngettext_lazy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgpack import ExtType, Timestamp  # type: ignore[import-untyped]

from cache_layer.codec import (
    CodecError,
    SafeSerializer,
    SignedPickleSerializer,
    UnsupportedValueError,
    register,
    signing,
)

codec = SafeSerializer({})


@register
class Colour(enum.Enum):
    RED = 1
    CRIMSON = RED
    BLUE = "blue"


@register
class Level(enum.IntEnum):
    LOW = 1


@register
class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@register
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: Any = None


@register
@dataclasses.dataclass
class Order:
    lines: list[Point]
    discount: dataclasses.InitVar[int]
    total: int = dataclasses.field(init=False)
    seen: ClassVar[int] = 0

    def __post_init__(self, discount: int) -> None:
        self.total = 100 - discount


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


register(Money, name="money", encode=lambda m: m.cents, decode=Money)


def round_trip(value: Any) -> Any:
    return codec.loads(codec.dumps(value))


def exactly(a: Any, b: Any) -> bool:
    """Equal, of equal types, at every depth; NaN is NaN and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and (a == b or (a != a and b != b))
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(exactly, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            exactly(x, y) for x, y in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(exactly(x, y) for y in b) for x in a)
    if isinstance(a, datetime | time):
        return (
            a.replace(tzinfo=None) == b.replace(tzinfo=None)
            and a.fold == b.fold
            and repr(a.tzinfo) == repr(b.tzinfo)
            and type(a.tzinfo) is type(b.tzinfo)
        )
    if dataclasses.is_dataclass(a):
        return all(exactly(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from(["Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC"]).map(
        ZoneInfo
    ),
    st.builds(
        timezone,
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
        st.sampled_from(["X|Y", "", "\ud800"]),
    ),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
any_text = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates too
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(),
    any_text,
    st.binary(),
    st.builds(
        lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
        st.datetimes(),
        st.integers(0, 1),
        zones,
    ),
    st.dates(),
    st.builds(
        lambda t, fold, zone: t.replace(fold=fold, tzinfo=zone),
        st.times(),
        st.integers(0, 1),
        zones,
    ),
    st.timedeltas(),
    st.decimals().filter(lambda d: not d.is_snan()),
    st.uuids(),
    any_text.map(SafeString),
    st.sampled_from([Colour.RED, Colour.BLUE, Level.LOW, Rights.READ | Rights.WRITE, Rights(0)]),
)
hashables = st.recursive(
    hashable_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=4,
)
values = st.recursive(
    st.one_of(hashables, st.binary().map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.builds(Point, st.floats(), inner),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
@example([bytearray(), b"", {"ł": bytearray(b"\xc4")}])
@example({1: "1", "1": 1} | {(1, (2,)): {frozenset({(): ()}.items())}})
@example("\ud83d\ude00 is not \U0001f600, \0 neither")
@example(10**5000)
@example([-0.0, float("nan"), float("-inf"), Decimal("-0E+7"), Decimal("sNaN12")])
def test_what_comes_back_is_exactly_what_went_in(value: Any) -> None:
    assert exactly(round_trip(value), value)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", b"1", None, (1,), [1], {1}, frozenset({1})])
def test_look_alikes_stay_apart(value: Any) -> None:
    found = round_trip({"deep": [value, (value,)]})["deep"]
    assert type(found[0]) is type(value)
    assert type(found[1][0]) is type(value)


def test_the_repeated_hour_keeps_its_fold_and_its_zone() -> None:
    late = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    found = round_trip(late)
    assert found.utcoffset() == timedelta(hours=1)
    assert found.tzinfo is late.tzinfo


def test_safe_strings_stay_safe_and_plain_ones_plain() -> None:
    assert type(round_trip(mark_safe("<b>"))) is SafeString
    assert type(round_trip("<b>")) is str


def test_dataclasses_do_not_run_their_initialisation_again() -> None:
    order = Order([Point(1.5)], discount=30)
    order.total = 7
    assert round_trip(order) == order
    assert round_trip(order).total == 7


def test_registered_classes_use_their_own_functions() -> None:
    assert round_trip([Money(250)])[0].cents == 250


def test_a_subclass_is_not_its_base() -> None:
    class Custom(dict[str, int]):
        pass

    class Text(str):
        __slots__ = ()

    class SubPoint(Point):
        pass

    for value in (Custom(a=1), Text("x"), SubPoint(1.0), type("Big", (int,), {})(5)):
        with pytest.raises(UnsupportedValueError):
            codec.dumps([value])


class Local(tzinfo):
    pass


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "builtins.object, as the value itself"),
        ({"a": [1, 2, 3, Point(1.0, object())]}, "builtins.object, at value['a'][3].y"),
        ([{"when": datetime(2024, 1, 1, tzinfo=Local())}], "Local, at value[0]['when'].tzinfo"),
        ({("k", print): 1}, "builtin_function_or_method, at value (the key"),
        ({1, ngettext_lazy("x", "y", 2)}, "__proxy__, at value{…}"),
        ([b"", memoryview(b"xy").cast("H")], "builtins.memoryview, at value[1]"),
        ({"a": [1, ExtType(5, b"x")]}, "msgpack.ext.ExtType, at value['a'][1]"),
        (["x", Timestamp(1)], "msgpack.ext.Timestamp, at value[1]"),
        ((Timestamp(1 << 40),), "msgpack.ext.Timestamp, at value[0]"),
        ((i for i in ()), "builtins.generator, as the value itself"),
    ],
)
def test_a_refusal_names_type_place_and_options(value: Any, place: str) -> None:
    with pytest.raises(UnsupportedValueError) as caught:
        codec.dumps(value)
    message = str(caught.value)
    assert place in message
    assert "cache_layer.codec.register" in message
    assert "SignedPickleSerializer" in message
    assert isinstance(caught.value, TypeError)


def nested(depth: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append({"me": circle})
    point = Point(1.0)
    object.__setattr__(point, "y", [point])
    for value in (circle, (circle,), point, nested(100_000, lambda v: [v])):
        with pytest.raises(UnsupportedValueError, match="contains itself or is nested too deeply"):
            codec.dumps(value)


@pytest.mark.parametrize(
    ("depth", "wrap"), [(500, lambda v: [v]), (250, lambda v: {"a": [v]}), (800, lambda v: (v,))]
)
def test_ordinary_depth_is_no_problem(depth: int, wrap: Any) -> None:
    value = nested(depth, wrap)
    assert round_trip(value) == value


def test_whatever_can_be_written_can_be_read() -> None:
    for depth in range(480, 1_100, 7):
        value = nested(depth, lambda v: [v])
        try:
            data = codec.dumps(value)
        except UnsupportedValueError:
            break
        found = codec.loads(data)
        for _ in range(depth):
            (found,) = found
        assert found == 1


def test_the_first_byte_cannot_be_mistaken_for_a_number_or_a_lease() -> None:
    for value in (0, -1, "1", b"\0", None, [], 10**40):
        assert codec.dumps(value)[:1] not in (b"", b"\0", b"-", *(b"%d" % n for n in range(10)))


def resigned(message: bytes, old: bytes = b"", new: bytes = b"") -> bytes:
    """Change a signed message as somebody could who knows the secret."""
    body = message[33:].replace(old, new) if old else message[33:]
    return message[:1] + signing.sign(body, "cache_layer.codec.SafeSerializer") + body


FOREIGN = [
    b"",
    b"\x01",
    b"12",
    b"\0L" + bytes(16),
    pickle.dumps({"a": 1}),
    b'{"json": true}',
    codec.dumps([1, 2])[:-1],
    codec.dumps([1, 2]) + b"x",
    b"\x01\xc1",
    b"\x01\xc7\x01\x63\x00",  # an extension code that nobody uses
    b"\x01\x81\x90\x01",  # a dict with a list as its key
    b"\x01\xdd\xff\xff\xff\xff",  # a list of four thousand million items
    resigned(codec.dumps(Colour.RED), b"RED", b"RAD"),
    resigned(codec.dumps(Money(1)), b"money", b"honey"),
    resigned(codec.dumps(Point(1.0)), b"\xa1x", b"\xa1z"),
    codec.dumps((1, 2)).replace(b"\x01\x02", b"\x01\x03"),
    codec.dumps((1, 2))[:20],
    codec.dumps(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))).replace(
        b"ZEurope/Berlin", b"Z../../../etc/"
    ),
    SignedPickleSerializer({}).dumps({"a": 1}),
]


@pytest.mark.parametrize("data", FOREIGN, ids=range(len(FOREIGN)))
def test_corrupt_and_foreign_bytes_are_one_named_error(data: bytes) -> None:
    with pytest.raises(CodecError):
        codec.loads(data)


def test_maliciously_deep_bytes_are_the_same_error() -> None:
    data = b"\xc0"
    for _ in range(2_000):
        data = b"\xc9" + len(data).to_bytes(4, "big") + b"\x01" + data
    with pytest.raises(CodecError):
        codec.loads(b"\x01" + data)
    with pytest.raises(CodecError):
        codec.loads(b"\x01" + b"\x91" * 100_000 + b"\xc0")


@settings(max_examples=300, deadline=None)
@given(st.binary())
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    for attempt in (data, b"\x01" + data, b"\x02" + data):
        for serializer in (codec, SignedPickleSerializer({})):
            try:
                serializer.loads(attempt)
            except CodecError:
                continue


def test_damaged_values_never_raise_anything_else() -> None:
    source = random.Random(7)
    good = codec.dumps(
        [
            {"a": (1, {2, 3}, Decimal("1.5"), uuid4(), SafeString("x"), Colour.BLUE)},
            datetime.now(ZoneInfo("Asia/Tokyo")),
            [
                date(2024, 2, 29),
                time(1, 2),
                timedelta(1),
                Point(1.0, Rights.READ),
                1 << 99,
                "\ud800",
            ],
        ]
    )
    refused = 0
    for _ in range(5_000):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(33, len(data))] = source.randrange(256)
        try:
            codec.loads(resigned(bytes(data)))
        except CodecError:
            refused += 1
    assert refused > 1_000


def test_a_value_is_written_correctly_while_another_is_being_written() -> None:
    class Busy:
        pass

    def encode(value: Busy) -> Any:
        assert round_trip({"other": [1, (2,)]}) == {"other": [1, (2,)]}
        return ["busy"]

    register(Busy, name="busy", encode=encode, decode=lambda state: (Busy(), state)[1])
    assert round_trip([1, Busy(), {"x": Busy()}]) == [1, ["busy"], {"x": ["busy"]}]


def test_an_encoder_that_fails_is_a_refusal_that_names_it() -> None:
    class Broken:
        pass

    register(Broken, name="broken", encode=lambda value: value.missing, decode=vars)
    with pytest.raises(UnsupportedValueError, match="its encode raised AttributeError"):
        codec.dumps({"a": Broken()})


def test_threads_do_not_mix_their_values() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        value = {"n": number, "t": (number, Decimal(number)), "s": "ł" * number}
        for _ in range(500):
            if round_trip(value) != value:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_registering_explains_what_is_missing() -> None:
    class Plain:
        pass

    with pytest.raises(ValueError, match="local to a function"):
        register(Plain)
    with pytest.raises(TypeError, match="neither an enum, a dataclass"):
        register(Plain, name="plain")
    with pytest.raises(ValueError, match="already stands for"):
        register(Plain, name="money", encode=vars, decode=lambda state: Plain())
    with pytest.raises(ValueError, match="the codec decides"):
        register(UUID)


@pytest.mark.parametrize("base", [dict, list, str, Exception])
def test_a_dataclass_that_is_more_than_its_fields_is_not_registered(base: type) -> None:
    cls = dataclasses.make_dataclass("More", [("a", int)], bases=(base,))
    with pytest.raises(TypeError, match="more than its fields"):
        register(cls, name="more")


def test_pickle_takes_what_pickle_takes() -> None:
    signed = SignedPickleSerializer({})
    value = {"function": test_pickle_takes_what_pickle_takes, "set": {1}}
    assert signed.loads(signed.dumps(value)) == value


def test_a_tampered_pickle_is_never_loaded() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("the pickle was executed",))

    signed = SignedPickleSerializer({})
    good = signed.dumps([1])
    with pytest.raises(CodecError):
        signed.loads(good[:33] + pickle.dumps(Bomb()))
    with pytest.raises(CodecError):
        signed.loads(pickle.dumps(Bomb()))
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(CodecError):
            signed.loads(bytes(bad))


def test_secrets_can_be_rotated() -> None:
    with override_settings(SECRET_KEY="old" * 20):
        data = SignedPickleSerializer({}).dumps([1])
    with override_settings(SECRET_KEY="new" * 20, SECRET_KEY_FALLBACKS=["old" * 20]):
        assert SignedPickleSerializer({}).loads(data) == [1]
    with override_settings(SECRET_KEY="new" * 20), pytest.raises(CodecError):
        SignedPickleSerializer({}).loads(data)


def test_what_pickle_refuses_is_named_as_pickle_names_it() -> None:
    with pytest.raises(UnsupportedValueError) as caught:
        SignedPickleSerializer({}).dumps(lambda: 1)
    assert isinstance(caught.value, pickle.PicklingError)
