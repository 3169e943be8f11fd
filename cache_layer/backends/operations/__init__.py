"""The operations of the cache, each an object; see ``base``."""
