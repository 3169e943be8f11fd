"""What poisoned, huge and shared values can and cannot do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from django.contrib.auth.models import Group
from django.test import override_settings

from cache_layer.codec import (
    CodecError,
    SafeSerializer,
    UnsupportedValueError,
    limits,
    register,
    safe,
)

codec = SafeSerializer({})
TOO_MANY = r"more than 1,000|exceeds max_"


def test_a_stored_extension_cannot_become_an_object() -> None:
    # What msgpack gives an application for extensions that a client sent.
    body = codec.dumps(Group(name="admin"))
    for code in range(30):
        payload = msgpack.ExtType(code, body)
        for value in (payload, {"sent": payload}, [(payload,), Group()], {payload: 1}):
            with pytest.raises(UnsupportedValueError, match="ExtType"):
                codec.dumps(value)


def test_a_model_that_this_project_did_not_store_is_not_built() -> None:
    with override_settings(SECRET_KEY="somebody else's"):
        foreign = codec.dumps([Group(name="admin")])
    with pytest.raises(CodecError, match="signature"):
        codec.loads(foreign)
    # The same records without a signature.
    with pytest.raises(CodecError):
        codec.loads(safe.PLAIN + foreign[33:])


def test_a_model_stored_with_an_earlier_secret_is_read() -> None:
    with override_settings(SECRET_KEY="old" * 20):
        data = codec.dumps([Group(name="a")])
    with override_settings(SECRET_KEY="new" * 20, SECRET_KEY_FALLBACKS=["old" * 20]):
        assert codec.loads(data)[0].name == "a"


def test_an_object_that_occurs_often_is_written_once() -> None:
    value: Any = ("leaf",)
    for _ in range(200):
        value = (value, value)
    data = codec.dumps(value)
    assert len(data) < 10_000
    found = codec.loads(data)
    for _ in range(200):
        assert found[0] is found[1]
        found = found[0]
    assert found == ("leaf",)


def test_an_object_needed_by_a_later_one_is_built_first() -> None:
    inner = (1,)
    outer = (inner, 2)
    assert codec.loads(codec.dumps([inner, outer, {"again": (outer, inner)}])) == [
        (1,),
        ((1,), 2),
        {"again": (((1,), 2), (1,))},
    ]


def test_millions_of_items_are_refused_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ITEMS", 1000)
    assert codec.loads(codec.dumps([[]] * 490)) == [[]] * 490
    assert codec.loads(codec.dumps(["x" * 10_000])) == ["x" * 10_000]
    for value in ([[]] * 1000, [{}] * 1000, {n: [] for n in range(990)}, [(1,), *[[]] * 1000]):
        with pytest.raises(UnsupportedValueError, match=TOO_MANY):
            codec.dumps(value)
    with pytest.raises(CodecError, match=TOO_MANY):
        codec.loads(safe.PLAIN + b"\xdc\x05\x00" + b"\x90" * 0x500)


SHARED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
import django
from django.conf import settings
settings.configure(SECRET_KEY="x")
django.setup()
from cache_layer.codec import SafeSerializer, UnsupportedValueError
codec = SafeSerializer({})
shared = [1]
for _ in range(25):
    shared = [shared, shared]
wide = [[0] * 1_000_000] * 1_000_000
for value in (shared, (shared,), {"a": [(1,), shared]}, wide, [(wide,)] * 2):
    try:
        codec.dumps(value)
    except UnsupportedValueError as error:
        print("more than 4,194,304 values" in str(error))
assert codec.loads(codec.dumps([[[0] * 1000] * 1000] * 4)) == [[[0] * 1000] * 1000] * 4
"""


def test_a_list_that_occurs_often_is_counted_before_it_takes_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.returncode) == (["True"] * 5, 0), done.stderr


def test_lists_shared_by_many_tuples_are_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ITEMS", 1000)
    shared = [0] * 100
    assert codec.loads(codec.dumps([(n, shared) for n in range(8)]))[7] == (7, shared)
    with pytest.raises(UnsupportedValueError, match=TOO_MANY):
        codec.dumps([(n, shared) for n in range(10)])


def test_an_exception_of_a_signal_handler_is_not_taken_for_corruption() -> None:
    class SoftTimeLimitExceeded(Exception):  # noqa: N818 - Celery's name.
        pass

    class Slow:
        pass

    def interrupted(state: object) -> Slow:
        raise SoftTimeLimitExceeded

    register(Slow, name="slow to decode", encode=lambda value: 1, decode=interrupted)
    data = codec.dumps([Slow()])
    with pytest.raises(SoftTimeLimitExceeded):
        codec.loads(data)


SMALL_STACK = """
import threading
import django
from django.conf import settings
settings.configure(SECRET_KEY="x")
django.setup()
from cache_layer.codec import CodecError, SafeSerializer
codec = SafeSerializer({})
TOO_MANY = r"more than 1,000|exceeds max_"

def attempt():
    value = 1
    for _ in range(400):
        value = (value,)
    found = codec.loads(codec.dumps({"deep": value}))["deep"]
    depth = 0
    while type(found) is tuple:
        (found,) = found
        depth += 1
    print(depth)
    lists = 1
    for _ in range(490):
        lists = [lists]
    assert codec.loads(codec.dumps((lists,)))
    lists = b"\\xdd\\xff\\xff\\xff\\xff" * 500
    for data in (b"\\x91" * 100_000, b"\\xc9\\x00\\x00\\x00\\x04\\x00abcd", lists):
        try:
            codec.loads(b"\\x01" + data)
        except CodecError:
            print("refused")

codec.dumps([(1,)])
threading.stack_size(256 * 1024)
thread = threading.Thread(target=attempt)
thread.start()
thread.join()
"""


def test_nothing_overflows_the_stack_of_a_small_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_STACK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.returncode) == (["400", *["refused"] * 3], 0), done.stderr
