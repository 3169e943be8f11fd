"""What the cache can do, one object an operation; see ``base``."""
