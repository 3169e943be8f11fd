"""The near cache by itself, without Redis."""

from __future__ import annotations

import time

import pytest

from cache_layer.backends.near.cache import NearCache, NearOptions


class TestOrder:
    """Reads, replies and reports in every order; no Redis."""

    @pytest.fixture
    def near(self) -> NearCache:
        near = NearCache(NearOptions(max_entries=3))
        near.turn_on(float("inf"), lambda: True)
        return near

    def test_a_report_before_the_reply_keeps_nothing(self, near: NearCache) -> None:
        pending = near.begin_read(["k"])
        assert pending is not None
        near.drop(["k"])
        near.commit_read(pending, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [None]

    def test_a_report_after_the_reply_drops_the_entry(self, near: NearCache) -> None:
        pending = near.begin_read(["k"])
        assert pending is not None
        near.commit_read(pending, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [b"old"]
        near.drop(["k"])
        assert near.find(["k"]) == [None]

    def test_a_read_after_the_report_is_kept_beside_one_before(self, near: NearCache) -> None:
        before = near.begin_read(["k"])
        near.drop(["k"])
        after = near.begin_read(["k"])
        assert before is not None
        assert after is not None
        near.commit_read(before, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [None]
        near.commit_read(after, ["k"], [b"new"], [-1])
        assert near.find(["k"]) == [b"new"]

    def test_the_earlier_of_two_replies_does_not_stay(self, near: NearCache) -> None:
        first, second = near.begin_read(["k"]), near.begin_read(["k"])
        assert first is not None
        assert second is not None
        near.commit_read(first, ["k"], [b"old"], [-1])
        near.commit_read(second, ["k"], [b"new"], [-1])
        assert near.find(["k"]) == [None]

    def test_a_reply_of_before_the_cache_was_off_is_not_kept(self, near: NearCache) -> None:
        pending = near.begin_read(["k"])
        assert pending is not None
        near.turn_off()
        assert near.begin_read(["k"]) is None
        near.turn_on(float("inf"), lambda: True)
        near.commit_read(pending, ["k"], [b"old"], [-1])
        near.begin_read(["k"])
        near.commit_read(pending, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [None]

    def test_a_cancelled_read_is_not_kept(self, near: NearCache) -> None:
        pending = near.begin_read(["k"])
        assert pending is not None
        near.cancel_read(pending, ["k"])
        near.commit_read(pending, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [None]

    def test_entries_are_not_used_without_reports(self) -> None:
        near = NearCache(NearOptions())
        near.turn_on(time.monotonic() + 0.05, lambda: True)
        pending = near.begin_read(["k"])
        assert pending is not None
        near.commit_read(pending, ["k"], [b"v"], [-1])
        assert near.find(["k"]) == [b"v"]
        time.sleep(0.06)
        assert near.find(["k"]) == [None]

    def test_a_used_entry_is_evicted_last(self, near: NearCache) -> None:
        for number in range(6):
            key = f"k{number}"
            pending = near.begin_read([key])
            assert pending is not None
            near.commit_read(pending, [key], [b"v"], [-1])
            assert near.find(["k0"]) == [b"v"]
        assert len(near) == 3
        assert near.find(["k5"]) == [b"v"]
        assert near.find(["k3"]) == [None]
