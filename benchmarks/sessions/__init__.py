"""The session store beside its peers, in one PostgreSQL: ``python -m benchmarks.sessions``."""
