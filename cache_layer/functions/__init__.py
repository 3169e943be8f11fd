"""``@cached`` and ``@cache_invalidate``: what they make of a function."""
