"""Addresses of Redis, without what must not be shown."""

from __future__ import annotations

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=[?&]password=)[^&]*")


def without_password(url: object) -> object:
    """Return a URL with ``***`` in place of its password, and what is no string as it is."""
    if not isinstance(url, str):
        return url
    before, at, rest = url.rpartition("@")
    scheme, separator, credentials = before.partition("://")
    if at:
        before = f"{scheme}{separator}{credentials.partition(':')[0]}:***"
    return f"{before}{at}{_PASSWORD.sub('***', rest)}"
