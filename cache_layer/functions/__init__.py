"""What ``@cached`` and ``@cache_invalidate`` make of a function."""
