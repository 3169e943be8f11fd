"""A reader process of the fill race: computes what the database says and caches it.

The database is a key of the same Redis. Reads keys from standard input, one a line, and writes a
line when each is done. ``--unfenced`` does it the usual way: get, compute, set.
"""

from __future__ import annotations

import random
import sys
import time

import django
import redis
from django.conf import settings

if __name__ == "__main__":
    settings.configure(INSTALLED_APPS=["cache_layer"], SECRET_KEY="only-for-tests")
    django.setup()
    from cache_layer.backends import ResilientCache

    url, prefix, *options = sys.argv[1:]
    cache = ResilientCache(url, {"KEY_PREFIX": prefix})
    database = redis.Redis.from_url(url)

    def compute(key: str) -> str:
        value = database.get(f"database:{key}")
        time.sleep(random.random() / 500)
        return value.decode()

    print("ready", flush=True)
    for line in sys.stdin:
        key = line.strip()
        if "--unfenced" not in options:
            cache.get_or_set(key, lambda key=key: compute(key))
        elif cache.get(key) is None:
            cache.set(key, compute(key))
        print(key, flush=True)
