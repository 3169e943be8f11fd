"""Decorated functions within Django's ``TestCase``, whose transaction never commits."""

from __future__ import annotations

from django.db import transaction
from django.test import TestCase

from cache_layer import cache_invalidate, cached

changes = {"made": 0}


@cached(key_prefix="testcase")
def read() -> int:
    return changes["made"]


@cache_invalidate("testcase:read:*")
def change() -> None:
    changes["made"] += 1


class InvalidationTests(TestCase):
    def test_invalidation_acts_within_the_test(self) -> None:
        read.invalidate()
        known = read()
        change()
        assert read() == known + 1
        with transaction.atomic():
            change()
        assert read() == known + 2
