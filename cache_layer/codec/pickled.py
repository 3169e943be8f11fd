"""Pickle for those who opt in: signed, so that nobody but this project can write what is loaded."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from cache_layer.codec.registry import type_name
from cache_layer.exceptions import CodecError, UnsupportedValueError

#: First byte of everything written here.
VERSION: Final = b"\x02"
_SALT: Final = "cache_layer.codec.SignedPickleSerializer"
_DIGEST_SIZE: Final = 32


class UnpicklableValueError(UnsupportedValueError, pickle.PicklingError):
    """A value that pickle refuses."""


class SignedPickleSerializer:
    """Pickle, signed with ``SECRET_KEY``; ``SECRET_KEY_FALLBACKS`` are accepted when reading.

    A value that was tampered with, or signed with a secret that is no longer known, raises
    ``CodecError`` before anything is unpickled. The signature does not cover the key: who can
    write to Redis cannot forge a value, but can copy one to another key.

    ``OPTIONS["PICKLE_VERSION"]`` chooses the protocol, as for django-redis's own serializer.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        version = (options or {}).get("PICKLE_VERSION", pickle.DEFAULT_PROTOCOL)
        try:
            self._protocol = int(version)
        except (TypeError, ValueError):
            self._protocol = pickle.HIGHEST_PROTOCOL + 1
        if self._protocol > pickle.HIGHEST_PROTOCOL:
            raise ImproperlyConfigured(
                f"PICKLE_VERSION is {version!r}: it must be a whole number up to "
                f"{pickle.HIGHEST_PROTOCOL}."
            )

    def dumps(self, value: Any) -> bytes:
        """Return the signed pickle of a value.

        Raises ``UnsupportedValueError`` (also a ``pickle.PicklingError``) if pickle refuses it.
        """
        try:
            pickled = pickle.dumps(value, self._protocol)
        except Exception as error:
            raise UnpicklableValueError(
                f"{type_name(type(value))}, as the value itself, cannot be pickled: {error}"
            ) from error
        return VERSION + _signature(pickled, settings.SECRET_KEY) + pickled

    def loads(self, data: bytes) -> Any:
        """Return the value, or raise ``CodecError`` if the signature or the pickle is not ours."""
        signature, pickled = data[1 : 1 + _DIGEST_SIZE], data[1 + _DIGEST_SIZE :]
        secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        if data[:1] != VERSION or not any(
            hmac.compare_digest(signature, _signature(pickled, secret)) for secret in secrets
        ):
            raise CodecError("the bytes do not carry this project's signature")
        try:
            return pickle.loads(pickled)  # noqa: S301 - signed by ourselves.
        except Exception as error:
            raise CodecError(f"the pickle cannot be loaded: {error!r}") from error


def _signature(pickled: bytes, secret: str | bytes) -> bytes:
    return salted_hmac(_SALT, pickled, secret=secret, algorithm="sha256").digest()
