"""The ``CACHES`` backend: ``"BACKEND": "cache_layer.backends.ResilientCache"``."""

from __future__ import annotations

from cache_layer.backends.context import Lease
from cache_layer.backends.outage import CacheUnavailableError
from cache_layer.backends.resilient import ResilientCache

__all__ = ["CacheUnavailableError", "Lease", "ResilientCache"]
