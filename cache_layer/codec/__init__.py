"""Serializers for django-redis's ``SERIALIZER`` option.

``SafeSerializer`` (the default) is exact and cannot execute code; ``register`` adds types to it.
``SignedPickleSerializer`` uses pickle, for projects that need it.
"""

from __future__ import annotations

from cache_layer.codec.pickled import SignedPickleSerializer
from cache_layer.codec.registry import register
from cache_layer.codec.safe import SafeSerializer
from cache_layer.exceptions import CodecError, UnsupportedValueError

__all__ = [
    "CodecError",
    "SafeSerializer",
    "SignedPickleSerializer",
    "UnsupportedValueError",
    "register",
]
