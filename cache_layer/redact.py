"""Addresses of Redis, as they may be shown."""

from __future__ import annotations

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=[?&]password=)[^&]*")


def without_password(url: object) -> object:
    """Return a URL, well formed or not, with ``***`` in place of its password."""
    if not isinstance(url, str):
        return url
    before, at, rest = url.rpartition("@")
    scheme, separator, credentials = before.partition("://")
    if at:
        before = f"{scheme}{separator}{credentials.partition(':')[0]}:***"
    return f"{before}{at}{_PASSWORD.sub('***', rest)}"
