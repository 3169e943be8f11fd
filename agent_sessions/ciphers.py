"""Ciphers for the texts of conversations: AGENT_SESSIONS_CIPHER names one."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from django.core.exceptions import ImproperlyConfigured

from agent_sessions.conf import settings

_NONCE_BYTES = 12
_KEY_BYTES = (16, 24, 32)
_LONGEST_KEY_ID = 40


@runtime_checkable
class Cipher(Protocol):
    """Encrypts texts and finds out whether they were tampered with.

    ``associated`` says to which row and field the text belongs. It is not in the result, and
    decrypting with another one must fail.
    """

    def encrypt(self, plain: bytes, associated: bytes) -> bytes:
        """Return the encrypted bytes."""

    def decrypt(self, data: bytes, associated: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            ValueError: The bytes were not encrypted like this.
        """

    def is_current(self, beginning: bytes) -> bool:
        """Return whether data with these first 48 bytes has the key of new data."""


class AESGCMCipher:
    """AES in Galois/Counter Mode, with the keys of AGENT_SESSIONS_CIPHER_KEYS.

    The setting maps ids of keys to keys of 16, 24 or 32 random bytes in Base64. The first one
    encrypts; all of them decrypt. Needs the extra ``encryption``.

    Raises:
        ImproperlyConfigured: The setting is something else, or the extra is not installed.
    """

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ImproperlyConfigured(
                "AESGCMCipher needs the package cryptography: install "
                "django-agent-sessions[encryption]."
            ) from error
        self._invalid = InvalidTag
        keys: object = settings.CIPHER_KEYS
        if not isinstance(keys, Mapping) or not keys:
            raise ImproperlyConfigured("AGENT_SESSIONS_CIPHER_KEYS has no key.")
        self._keys = {_header(name): AESGCM(_key(name, text)) for name, text in keys.items()}
        self._newest = next(iter(self._keys))

    def encrypt(self, plain: bytes, associated: bytes) -> bytes:
        """Return the id of the newest key, a random nonce and the encrypted bytes."""
        header, nonce = self._newest, os.urandom(_NONCE_BYTES)
        return header + nonce + self._keys[header].encrypt(nonce, plain, header + associated)

    def decrypt(self, data: bytes, associated: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            ValueError: The key is unknown, or the data was changed.
        """
        header, nonce, encrypted = _split(data)
        if header not in self._keys:
            raise ValueError(f"there is no key {header[1:].decode(errors='replace')!r}")
        try:
            return self._keys[header].decrypt(nonce, encrypted, header + associated)
        except self._invalid:
            raise ValueError("the key is another one, or the data was changed") from None

    def is_current(self, beginning: bytes) -> bool:
        """Return whether the data has the newest key."""
        return beginning.startswith(self._newest)


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    start = 1 + (data[0] if data else 0)
    nonce_end = start + _NONCE_BYTES
    return data[:start], data[start:nonce_end], data[nonce_end:]


def _header(name: object) -> bytes:
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_KEY_ID or not name.isascii():
        raise ImproperlyConfigured(
            f"AGENT_SESSIONS_CIPHER_KEYS: {name!r} is no id of 1 to {_LONGEST_KEY_ID} ASCII "
            "characters."
        )
    return bytes([len(name)]) + name.encode()


def _key(name: object, text: object) -> bytes:
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        # The key itself is not shown: checks and logs have this text.
        raise ImproperlyConfigured(
            f"AGENT_SESSIONS_CIPHER_KEYS: the key {name!r} is not 16, 24 or 32 bytes in Base64."
        )
    return key
