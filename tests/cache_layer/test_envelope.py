"""Bytes that look like an envelope and are none: never an exception, for whoever reads them."""

from __future__ import annotations

import random

import redis
from hypothesis import given
from hypothesis import strategies as st

from cache_layer.backends.encoding import (
    ENVELOPE,
    HEAD,
    ResultKey,
    living,
    named_tags,
    new_token,
    seal,
)
from cache_layer.backends.operations import lua
from cache_layer.backends.operations.lua import Script
from tests.cache_layer.caches import make_cache

KEYS = st.text(min_size=1, max_size=20)


@given(st.binary(max_size=200))
def test_damaged_envelopes_are_read_as_what_no_codec_knows(rest: bytes) -> None:
    data = ENVELOPE + rest
    named_tags([data])
    assert living(data, lambda _key: None) in (None, data, data[HEAD:])
    assert ResultKey("k", ("t",), [b"t"]).value_start([data, new_token()]) == -1


@given(KEYS, st.lists(KEYS, max_size=4, unique=True), st.binary(max_size=50), st.data())
def test_an_envelope_counts_while_all_its_tokens_do(
    key: str, tags: list[str], payload: bytes, data: st.DataObject
) -> None:
    result = ResultKey(key, tuple(tags), [tag.encode("utf-8", "surrogatepass") for tag in tags])
    tokens = {tag: new_token() for tag in tags}
    section = result.tag_section(list(tokens.values()))
    sealed = seal(section, payload, 0)
    assert named_tags([sealed]) == tags
    assert living(sealed, tokens.get) == payload
    if tags:
        assert sealed[result.value_start([sealed, *tokens.values()]) :] == payload
        changed = tokens | {data.draw(st.sampled_from(tags)): new_token()}
        assert living(sealed, changed.get) is None
        assert result.value_start([sealed, *changed.values()]) == -1


def test_damaged_envelopes_break_no_script(redis_url: str) -> None:
    cache = make_cache(redis_url)
    client = redis.Redis.from_url(redis_url)
    chance = random.Random(1)
    for _ in range(60):
        length = chance.choice([0, 10, 46, 47, 60, 200])
        size = chance.choice([b"\0\0\0\0", b"\0\0\0\x20", chance.randbytes(4)])
        data = (ENVELOPE + chance.randbytes(42) + size + chance.randbytes(150))[:length]
        client.set(cache.make_key("k"), data)
        key = cache.make_key("k").encode()
        for command in (
            lua.HOLDS([key]),
            lua.REMAINING([key]),
            lua.EXPIRE([key], 10_000),
            lua.LIVING([key]),
            lua.CLAIM_REFRESH([key], data[:18], 10_000, ""),
            lua.CLAIM([key, b"tag"], new_token()[2:], 10_000, 10_000, b"", new_token()),
            lua.DELETE([key]),
        ):
            client.execute_command(*(Script.otherwise(command) or command))
        client.set(key, data)
        assert cache.get("k") is None
        assert cache.get_many(["k"]) == {}
        assert cache.get_or_set("k", "computed") == "computed"
        client.set(key, data)
        assert cache.keys("*") == ["k"] * cache.has_key("k")
        cache.delete_pattern("*")
    client.close()
    cache.store.close()
