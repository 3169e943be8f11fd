"""Signs stored bytes with the secrets of the project."""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Final

from django.conf import settings
from django.utils.crypto import salted_hmac

SIZE: Final = 32


def sign(data: bytes, salt: str) -> bytes:
    """Return the signature of data, ``SIZE`` bytes long, with ``SECRET_KEY``.

    Args:
        data: The bytes to sign.
        salt: The purpose of the signature; a signature is valid for one purpose only.
    """
    return hmac.digest(_key(salt, settings.SECRET_KEY), data, "sha256")


def is_signed(data: bytes, signature: bytes, salt: str) -> bool:
    """Tell whether a signature is of ``SECRET_KEY`` or of one of ``SECRET_KEY_FALLBACKS``."""
    return any(
        hmac.compare_digest(signature, hmac.digest(_key(salt, secret), data, "sha256"))
        for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    )


@lru_cache(maxsize=16)
def _key(salt: str, secret: str | bytes) -> bytes:
    return salted_hmac(salt, "key", secret=secret, algorithm="sha256").digest()
