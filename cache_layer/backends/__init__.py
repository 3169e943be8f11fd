"""The ``CACHES`` backend: ``"BACKEND": "cache_layer.backends.ResilientCache"``."""

from __future__ import annotations

from cache_layer.backends.encoding import ResultKey, UnreadableValueError
from cache_layer.backends.foreign import ForeignCache
from cache_layer.backends.near.cache import NearOptions
from cache_layer.backends.near.decoded import NOT_FOUND, DecodedValues
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.factory import OperationFactory, ResultOperationFactory
from cache_layer.backends.operations.inputs import ExpirationPolicy
from cache_layer.backends.operations.leases import Lease
from cache_layer.backends.operations.results import MISSING, ReadResult, StaleValue
from cache_layer.backends.outage import (
    CacheUnavailableError,
    outage_option_problem,
    raises_on_outage,
)
from cache_layer.backends.pubsub import Channel
from cache_layer.backends.redis.errors import RedisUnavailableError
from cache_layer.backends.refusals import FEATURES
from cache_layer.backends.registry import (
    cluster_hash_tag,
    import_client,
    observe_calls,
    spreading_client,
)
from cache_layer.backends.resilient import ResilientCache
from cache_layer.backends.shared_metrics import NoSharedCountersError, SharedCounters

__all__ = [
    "FEATURES",
    "MISSING",
    "NOT_FOUND",
    "CacheUnavailableError",
    "Channel",
    "DecodedValues",
    "ExpirationPolicy",
    "ForeignCache",
    "Lease",
    "NearOptions",
    "NoSharedCountersError",
    "Operation",
    "OperationFactory",
    "ReadResult",
    "RedisUnavailableError",
    "ResilientCache",
    "ResultKey",
    "ResultOperationFactory",
    "SharedCounters",
    "StaleValue",
    "UnreadableValueError",
    "cluster_hash_tag",
    "import_client",
    "observe_calls",
    "outage_option_problem",
    "raises_on_outage",
    "spreading_client",
]
