"""The ``CACHES`` backend: ``"BACKEND": "cache_layer.backends.ResilientCache"``."""

from __future__ import annotations

from cache_layer.backends.encoding import ResultKey, UnreadableValueError
from cache_layer.backends.near.decoded import NOT_FOUND, DecodedValues
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.factory import (
    ExpirationPolicy,
    OperationFactory,
    ResultOperationFactory,
)
from cache_layer.backends.operations.leases import Lease
from cache_layer.backends.operations.results import MISSING, ReadResult, StaleValue
from cache_layer.backends.outage import CacheUnavailableError
from cache_layer.backends.resilient import ResilientCache

__all__ = [
    "MISSING",
    "NOT_FOUND",
    "CacheUnavailableError",
    "DecodedValues",
    "ExpirationPolicy",
    "Lease",
    "Operation",
    "OperationFactory",
    "ReadResult",
    "ResilientCache",
    "ResultKey",
    "ResultOperationFactory",
    "StaleValue",
    "UnreadableValueError",
]
