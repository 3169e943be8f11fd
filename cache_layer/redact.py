"""Hides passwords in the URLs of Redis."""

from __future__ import annotations

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=[?&]password=)[^&]*")


def without_password(url: object) -> object:
    """Return a URL with ``***`` in place of its password; return any other object unchanged."""
    if not isinstance(url, str):
        return url
    before, at, rest = url.rpartition("@")
    scheme, separator, credentials = before.partition("://")
    if at:
        before = f"{scheme}{separator}{credentials.partition(':')[0]}:***"
    return f"{before}{at}{_PASSWORD.sub('***', rest)}"
