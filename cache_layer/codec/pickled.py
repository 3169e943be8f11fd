"""A serializer with signed pickle, which loads only bytes that this project wrote."""

from __future__ import annotations

import pickle
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from cache_layer.aliases import Options
from cache_layer.codec import signing
from cache_layer.codec.types import MISFITS, type_name
from cache_layer.exceptions import CodecError, UnsupportedValueError

#: First byte of every pickle that this serializer writes.
VERSION: Final = b"\x02"
_SALT: Final = "cache_layer.codec.SignedPickleSerializer"
_HEADER: Final = 1 + signing.SIZE
_ERRORS: Final = (*MISFITS, pickle.PickleError, EOFError, ImportError)


class UnpicklableValueError(UnsupportedValueError, pickle.PicklingError):
    """A value that pickle refuses."""


class SignedPickleSerializer:
    """Stores values as pickles signed with ``SECRET_KEY``; reads ``SECRET_KEY_FALLBACKS``, too.

    A value that was tampered with, or signed with an unknown secret, raises ``CodecError`` before
    anything is unpickled. The signature does not cover the key: somebody who can write to Redis
    cannot forge a value, but can copy one to another key.

    Args:
        options: The ``OPTIONS`` of the ``CACHES`` entry. ``PICKLE_VERSION`` chooses the protocol,
            as for django-redis's own serializer.

    Raises:
        ImproperlyConfigured: ``PICKLE_VERSION`` is not a protocol of this Python.
    """

    def __init__(self, options: Options | None = None) -> None:
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

    def dumps(self, value: object) -> bytes:
        """Return the signed pickle of a value.

        Raises:
            UnsupportedValueError: Pickle refuses the value. The error is a
                ``pickle.PicklingError``, too.
        """
        try:
            pickled = pickle.dumps(value, self._protocol)
        except _ERRORS as error:
            raise UnpicklableValueError(
                f"{type_name(type(value))}, as the value itself, cannot be pickled: {error}"
            ) from error
        return VERSION + signing.sign(pickled, _SALT) + pickled

    def loads(self, data: bytes) -> object:
        """Return the value of a signed pickle.

        Raises:
            CodecError: The signature is not this project's, or the pickle does not fit its code.
        """
        pickled = data[_HEADER:]
        if data[:1] != VERSION or not signing.is_signed(pickled, data[1:_HEADER], _SALT):
            raise CodecError("the bytes do not carry this project's signature")
        try:
            value: object = pickle.loads(pickled)  # noqa: S301 - signed by ourselves.
        except _ERRORS as error:
            raise CodecError(f"the pickle cannot be loaded: {error!r}") from error
        return value
