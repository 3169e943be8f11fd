"""The decorators ``@cached`` and ``@cache_invalidate``."""
